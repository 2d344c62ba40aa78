import { execFileSync } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { cpus, loadavg, release, totalmem, type } from 'node:os'
import { join } from 'node:path'
import { median, type Measured } from './measure.ts'
import { root } from './servers.ts'

/** A promise: what was measured, and the bound that it is held to. */
export type Promised = { what: string; value: number; bound: number; atMost?: boolean }

const holds = ({ value, bound, atMost }: Promised): boolean => (atMost ? value <= bound : value >= bound)

/** `how` says what of several measurements the figures are. */
export const promisesTable = (promises: readonly Promised[], how: string): string =>
  [
    `| Promise (${how}) | Bound | Measured | Holds |`,
    '| --- | ---: | ---: | --- |',
    ...promises.map(
      (each) =>
        `| ${each.what} | ${each.atMost ? '≤' : '≥'} ${each.bound.toFixed(2)} | ${each.value.toFixed(2)} | ${holds(each) ? 'yes' : '**no**'} |`,
    ),
  ].join('\n')

export const machine = (postgres: string, peers: string): string[] => {
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root }).toString().trim()
  return [
    `${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC, commit ${commit}`,
    `${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, ${type()} ${release()}, load ${loadavg()[0]?.toFixed(1)} at the start`,
    `Node ${process.version}, PostgreSQL ${postgres}, ${peers}`,
  ]
}

const rps = ({ slices }: Measured): number => median(slices.map(({ requestsPerSecond }) => requestsPerSecond))

function table(measured: readonly Measured[], base: Measured): string {
  const rows = measured.map((each) => {
    const [p50, p99] = [median(each.slices.map((s) => s.p50Ms)), median(each.slices.map((s) => s.p99Ms))]
    const [own, postgres] = [median(each.slices.map((s) => s.processMs)), median(each.slices.map((s) => s.postgresMs))]
    const all = each.slices.map((s) => Math.round(s.requestsPerSecond))
    return `| ${each.name} | ${each.note} | **${Math.round(rps(each))}** | ${Math.min(...all)}–${Math.max(...all)} | ${p50.toFixed(1)} | ${p99.toFixed(1)} | ${own.toFixed(2)} + ${postgres.toFixed(2)} | ${(rps(each) / rps(base)).toFixed(2)} |`
  })
  return [
    '| Asked | How | Requests/s (median) | Slices | p50 ms | p99 ms | CPU ms: process + PostgreSQL | × PostGraphile |',
    '| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    ...rows,
  ].join('\n')
}

const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** Horizontal bars; readable on a light page and a dark one. */
export function chart(measured: readonly Measured[]): string {
  const width = 760
  const left = 270
  const step = 30
  const most = Math.max(...measured.map(rps))
  const bars = measured.map((each, i) => {
    const y = 40 + i * step
    const length = Math.max(2, ((width - left - 90) * rps(each)) / most)
    const fill = each.name.startsWith('Ours') ? '#2563eb' : '#8b95a5'
    return `<text x="${left - 10}" y="${y + 14}" text-anchor="end">${escape(each.name)}</text><rect x="${left}" y="${y}" width="${length.toFixed(1)}" height="20" rx="3" fill="${fill}"/><text x="${(left + length + 8).toFixed(1)}" y="${y + 14}">${Math.round(rps(each))}</text>`
  })
  const height = 50 + measured.length * step
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="Requests per second"><style>text{font:13px system-ui,sans-serif;fill:#475569}@media(prefers-color-scheme:dark){text{fill:#cbd5e1}}</style><text x="${left}" y="22" font-weight="600">Requests per second, nested query, 32 connections</text>${bars.join('')}</svg>\n`
}

/** Writes `nested.md`, `nested.svg` and the raw figures; answers with what was written. */
export async function report(
  measured: readonly Measured[],
  base: Measured,
  promises: readonly Promised[],
  facts: readonly string[],
  name: string,
): Promise<string> {
  const directory = join(root, 'bench/results')
  await mkdir(directory, { recursive: true })
  const text = [
    '# The hot path, measured',
    '',
    'An organisation with twenty services and ten members with their users; 32 connections; an RS256 token or an API key with every request; made by `npm run bench`.',
    '',
    ...facts.map((fact) => `- ${fact}`),
    '',
    table(measured, base),
    '',
    promisesTable(promises, 'median of the ratios within each round'),
    '',
  ].join('\n')
  await writeFile(join(directory, `${name}.md`), text)
  await writeFile(join(directory, `${name}.svg`), chart(measured))
  const figures = measured.map(({ name, slices }) => ({ name, slices }))
  await writeFile(join(directory, `${name}.json`), `${JSON.stringify({ facts, promises, figures }, null, 1)}\n`)
  return text
}
