import { readFile, writeFile } from 'node:fs/promises'
import { z } from 'zod'
import { settings } from './config.ts'

const start = '<!-- configuration: generated from src/config.ts -->'
const end = '<!-- /configuration -->'

const cell = (text: string): string => text.replaceAll('|', '\\|')

/** The settings as a Markdown table: name, default, meaning. */
export function configurationTable(): string {
  const { properties = {} } = z.toJSONSchema(settings, { io: 'input', unrepresentable: 'any' }) as {
    properties?: Record<string, { default?: string | number | boolean; description?: string; enum?: string[] }>
  }
  const rows = Object.entries(properties).map(([name, { default: fallback, description = '', enum: values }]) => {
    const shown = fallback === undefined || fallback === '' ? '' : `\`${String(fallback)}\``
    const choices = values ? ` One of ${values.map((value) => `\`${value}\``).join(', ')}.` : ''
    return `| \`${name}\` | ${shown} | ${cell(description + choices)} |`
  })
  return ['| Setting | Default | Meaning |', '| --- | --- | --- |', ...rows].join('\n')
}

/** The text with its table replaced. */
export function withConfigurationTable(text: string): string {
  const [from, to] = [text.indexOf(start), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`Expected ${start} … ${end} in the text.`)
  return `${text.slice(0, from + start.length)}\n\n<!-- prettier-ignore -->\n${configurationTable()}\n\n${text.slice(to)}`
}

if (process.argv[1] === import.meta.filename) {
  const readme = new URL('../README.md', import.meta.url)
  await writeFile(readme, withConfigurationTable(await readFile(readme, 'utf8')))
}
