import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ESLint } from 'eslint'
import { copyOfTree } from '../harness/copyOfTree.ts'
import { root } from '../harness/process.ts'
import { defects, type Defect } from './defects.ts'

/*
 * Plants one defect at a time in a copy of the tree, and shows that its gate turns red and names it. A gate is green on the
 * same file before, so that it is red for no other reason. Each gate runs on what the defect concerns alone.
 */
type Verdict = { green: boolean; output: string }
type Gate = (file: string, text: string) => Promise<Verdict>

const say = (text: string): void => void process.stdout.write(`${text}\n`)
const scripts = (JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }).scripts // prettier-ignore
const folder = await copyOfTree()

async function command(name: string, args: string[]): Promise<Verdict> {
  const tool = name.endsWith('.mjs') ? name : join('node_modules/.bin', name)
  const child = spawn(process.execPath, [join(folder, tool), ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const [code] = (await once(child, 'close')) as [number | null]
  return { green: code === 0, output }
} // prettier-ignore

// Loaded once, since reading the types of the whole tree is what takes long; it judges as the options of `npm run lint` say.
const eslint = new ESLint({ cwd: root })
const [, most] = /^eslint \. .*--max-warnings (\d+)/.exec(scripts['lint'] ?? '') ?? []
const maxWarnings = most === undefined ? Infinity : Number(most)

async function lint(file: string, text: string): Promise<Verdict> {
  const [result] = await eslint.lintText(text, { filePath: join(root, file) })
  if (!result) throw new Error(`${file} is not linted.`)
  const output = result.messages.map(({ ruleId, message }) => `${ruleId}: ${message}`).join('\n')
  return { green: result.errorCount === 0 && result.warningCount <= maxWarnings, output }
}

/** The compiler, on one file and on what it imports. */
async function types(file: string): Promise<Verdict> {
  const project = 'tsconfig.planted.json'
  await writeFile(join(folder, project), JSON.stringify({ extends: './tsconfig.json', include: [], files: [file] }))
  return command('tsc', ['--noEmit', '--pretty', 'false', '-p', project])
}

/** Prints the schema anew, and compares it with the one that stood there. */
async function printed(): Promise<Verdict> {
  const path = join(folder, 'schema.graphql')
  const before = await readFile(path, 'utf8')
  const run = await command('tsx', ['src/printSchema.ts'])
  const after = await readFile(path, 'utf8')
  await writeFile(path, before)
  if (!run.green) return run
  const lines = (text: string): Set<string> => new Set(text.split('\n'))
  const [old, fresh] = [lines(before), lines(after)]
  const gone = [...old].filter((line) => !fresh.has(line)).map((line) => `-${line}`)
  const come = [...fresh].filter((line) => !old.has(line)).map((line) => `+${line}`)
  return { green: before === after, output: [...gone, ...come].join('\n') }
}

const gates: Record<Defect['gate'], Gate> = {
  lint,
  types,
  schema: printed,
  format: (file) => command('prettier', ['--check', file]),
  walls: (file) => command('depcruise', [file, '--config', '.dependency-cruiser.js', '--output-type', 'err']),
  // A field without a rule is not printed at all.
  rules: printed,
  vulnerabilities: () => command('tsx', ['test/gates/vulnerabilities.ts', '--offline']),
}

const greenBefore = new Map<string, Promise<Verdict>>()

/** Null when the gate caught it; what is wrong otherwise. */
async function failure({ file, plant, gate, says }: Defect): Promise<string | null> {
  const wholeTree = gates[gate] === printed || gate === 'vulnerabilities'
  const key = wholeTree ? gates[gate].name : `${gate} ${file}`
  const path = join(folder, file)
  const text = await readFile(path, 'utf8')
  const first = greenBefore.get(key) ?? gates[gate](file, text)
  greenBefore.set(key, first)
  const before = await first
  if (!before.green) return `the gate was red before:\n${before.output}`
  const planted = plant(text)
  if (planted === text) return 'nothing was planted'
  // The linter is given the text, so that it can work beside the others.
  if (gate !== 'lint') await writeFile(path, planted)
  const after = await gates[gate](file, planted)
  if (gate !== 'lint') await writeFile(path, text)
  if (after.green) return 'the gate stayed green'
  return says.test(after.output) ? null : `the gate is red, and does not name it:\n${after.output.slice(0, 2000)}`
}

const began = performance.now()
let missed = 0
async function inTurn(mine: (defect: Defect) => boolean): Promise<void> {
  for (const defect of defects.filter(mine)) {
    const wrong = await failure(defect)
    if (wrong) missed += 1
    say(wrong ? `MISSED  ${defect.name}: ${wrong}` : `${defect.name}: caught by ${defect.gate}`)
  }
}
try {
  await Promise.all([inTurn(({ gate }) => gate === 'lint'), inTurn(({ gate }) => gate !== 'lint')])
} finally {
  await rm(folder, { recursive: true, force: true })
}
say(`${defects.length - missed} of ${defects.length} planted defects caught in ${((performance.now() - began) / 1000).toFixed(0)} s`) // prettier-ignore
process.exitCode = missed ? 1 : 0
