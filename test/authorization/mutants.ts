import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { copyOfTree } from '../harness/copyOfTree.ts'
import { declarationMutants, type Mutant } from './mutantsOfDeclarations.ts'
import { guardMutants } from './mutantsOfGuards.ts'
import { policyMutants } from './mutantsOfPolicies.ts'

/*
 * Takes rules, row policies, ownership filters, row level security policies and the guards of what is stored, counted and
 * logged out of the source, one at a time, in a copy of the tree, and runs the tests that ought to notice. Ends with 1 when
 * any of them does not.
 *
 *   npm run mutants                     a sample of 22, two of each kind, the same every time
 *   npm run mutants -- --sample 40 --seed 7
 *   npm run mutants -- --all [--only ownership]
 */
const { values: options } = parseArgs({
  options: {
    sample: { type: 'string', default: '22' },
    seed: { type: 'string', default: '1' },
    all: { type: 'boolean', default: false },
    only: { type: 'string' },
    list: { type: 'boolean', default: false },
  },
})
const say = (text: string): void => void process.stdout.write(`${text}\n`)
const root = join(import.meta.dirname, '../..')

const notStarted = 'it does not start'

/** The tests, until the first that fails; answers with its name, or null when all pass. */
async function firstFailure(folder: string, tests: readonly string[]): Promise<string | null> {
  const args = ['node_modules/vitest/vitest.mjs', 'run', '--project', 'node', '--bail', '1', '--reporter', 'json', ...tests]
  // The sweep over every row catches what random questions would.
  const env = { ...process.env, AGREEMENT_QUESTIONS: '10' }
  const child = spawn(process.execPath, args, { cwd: folder, env, stdio: ['ignore', 'pipe', 'ignore'] })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const [code] = (await once(child, 'close')) as [number | null]
  if (code === 0) return null
  return /"status":"failed","title":"([^"]*)"/.exec(output)?.[1] ?? notStarted
} // prettier-ignore

/** The same numbers for the same seed (a linear congruential generator is random enough to choose by). */
function shuffled<T>(list: readonly T[], seed: number): T[] {
  let state = seed
  const next = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const all = [...list]
  for (let i = all.length - 1; i > 0; i -= 1) {
    const j = next(i + 1)
    ;[all[i], all[j]] = [all[j] as T, all[i] as T]
  }
  return all
}

/** As many of each kind as of the others. */
function sampleOf(mutants: readonly Mutant[], size: number): Mutant[] {
  const kinds = new Map<string, Mutant[]>()
  for (const mutant of shuffled(mutants, Number(options.seed))) kinds.set(mutant.kind, [...(kinds.get(mutant.kind) ?? []), mutant]) // prettier-ignore
  const chosen: Mutant[] = []
  for (let i = 0; chosen.length < size && [...kinds.values()].some((kind) => kind.length > i); i += 1)
    for (const kind of kinds.values()) if (kind[i] && chosen.length < size) chosen.push(kind[i] as Mutant)
  return chosen
}

const everything = [...(await declarationMutants(root)), ...(await policyMutants()), ...guardMutants]
const all = everything.filter(({ kind }) => !options.only || kind === options.only)
if (options.list) {
  for (const { kind, name } of all) say(`${kind}\t${name}`)
  process.exit()
}
const chosen = options.all ? all : sampleOf(all, Number(options.sample))
const folder = await copyOfTree()
const survivors: string[] = []
try {
  for (const { kind, name, file, change, tests, named } of chosen) {
    const path = join(folder, file)
    const before = await readFile(path, 'utf8').catch(() => null)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, change(before ?? ''))
    const first = await firstFailure(folder, tests)
    const failure = named && first === notStarted ? null : first
    if (before === null) await rm(dirname(path), { recursive: true })
    else await writeFile(path, before)
    say(`${failure ? 'caught  ' : 'SURVIVED'}  ${kind}: ${name}${failure ? `  ← ${failure}` : ''}`)
    if (!failure) survivors.push(name)
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}
const caught = chosen.length - survivors.length
say(`${caught} of ${chosen.length} mutants caught (${Math.round((caught / Math.max(1, chosen.length)) * 100)} %); there are ${all.length} in all`) // prettier-ignore
process.exitCode = survivors.length ? 1 : 0
