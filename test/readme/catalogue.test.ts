import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ConfigError, loadConfig } from '../../src/config.ts'
import { root } from '../harness/process.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mcp-readme-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function load(content: unknown) {
  const path = join(folder, 'catalogue.json')
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content))
  return loadConfig({ CATALOGUE_FILE: path }).catalogue
}

it('takes the catalogue of the README', async () => {
  const readme = await readFile(join(root, 'README.md'), 'utf8')
  const [example = ''] = readme.match(/(?<=^```json\n)\{\n {2}"services"[\s\S]*?(?=^```)/m) ?? []
  expect((await load(example))?.services['files']).toMatchObject({ title: 'Team files', needsCredential: true })
})

it('stops the start at a catalogue that is wrong, and says where', async () => {
  const entry = (change: object) => ({ services: { x: { title: 'X', command: 'x', ...change } } })
  const wrong: [unknown, RegExp][] = [
    ['{', /readable file of JSON/],
    [entry({ arguments: ['--token=${credential}'] }), /services\.x\.arguments\.0: a credential belongs/],
    [entry({ environment: { A: '${HOME}' } }), /services\.x\.environment\.A: expected no placeholder/],
    [entry({ environment: { 'A B': '' } }), /expected the name of a variable/],
    [entry({ shell: true }), /services\.x: Unrecognized key/],
    [entry({ userId: 0 }), /services\.x\.userId/],
    [entry({ limits: { memoryMebibytes: 1 } }), /services\.x\.limits\.memoryMebibytes/],
    [{ services: { '../x': { title: 'X', command: 'x' } } }, /expected a name/],
  ]
  for (const [content, reason] of wrong) {
    const problem: unknown = await load(content).catch((error: unknown) => error)
    expect(problem).toBeInstanceOf(ConfigError)
    expect(String(problem)).toMatch(reason)
  }
  expect(() => loadConfig({ CATALOGUE_FILE: join(folder, 'absent.json') })).toThrow(/readable file/)
})
