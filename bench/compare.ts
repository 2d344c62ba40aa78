import { execFileSync, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { access, mkdir, writeFile } from 'node:fs/promises'
import { cpus, loadavg } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { openCpuMeter } from './cpu.ts'
import { confidence, type Confidence } from './confidence.ts'
import type { Target } from './load.ts'
import { median } from './measure.ts'
import { root, startLoad, stopAll } from './servers.ts'

const help = `npm run bench:compare -- --base <checkout> [options]

Compares two builds of the platform: this checkout and another one, on one machine, with one nested query. Each has a
PostgreSQL database of its own, made by its own migrations. They are asked in turns, base, this, this, base, so that what
else the machine does meets both alike. Prints the medians and the ratio with its 95 % bounds; ends with 1 where the lower
bound is below --least.

  --base <path>      the other checkout, built (node bin/build.js there)
  --pairs <n>        turns of four slices (15)
  --ask <what>       document (a token and a document; the default), registered (a token and a document id),
                     key (a key and a document id), get (the same by GET)
  --slice <ms>       length of a slice (1500)
  --least <ratio>    the lower bound that is asked for (0.95)
  --node <binary>    the Node.js that runs both
  --help

DATABASE_URL         the server, as a role that may create databases and roles (postgres://root@127.0.0.1:5432/postgres)
`

const { values } = parseArgs({
  options: {
    base: { type: 'string' },
    pairs: { type: 'string', default: '15' },
    ask: { type: 'string', default: 'document' },
    slice: { type: 'string', default: '1500' },
    least: { type: 'string', default: '0.95' },
    node: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
if (values.help || !values.base) {
  process.stdout.write(help)
  process.exit(values.help ? 0 : 2)
}
if (values.node && resolve(values.node) !== process.execPath) {
  // Servers and load are started with the binary that runs this file.
  const again = [...process.execArgv, ...process.argv.slice(1)]
  const { status } = spawnSync(resolve(values.node), again, { stdio: 'inherit' })
  process.exit(status ?? 1)
}

const ways = new Map([
  ['document', ['token', 'document']],
  ['registered', ['token', 'registered']],
  ['key', ['key', 'registered']],
  ['get', ['key', 'get']],
] as const)
const way = ways.get(values.ask as 'document')
if (!way) throw new Error(`--ask is one of ${[...ways.keys()].join(', ')}.`)
const [asker, form] = way

const serverUrl = process.env['DATABASE_URL'] ?? 'postgres://root@127.0.0.1:5432/postgres'
const run = randomBytes(3).toString('hex')
const connections = 32
const warmAfter = 10_000
const longestWarmUpMs = 60_000
const sliceMs = Number(values.slice)
const say = (text: string): void => void process.stderr.write(`${text}\n`)

type Side = { name: string; commit: string; target: Target; pid: number; close: () => Promise<void> }
const opened: Side[] = []

/** A build with a database of its own, started by the bench of its own checkout. */
async function start(name: string, checkout: string): Promise<Side> {
  await access(join(checkout, 'dist/main.js')).catch(() => {
    throw new Error(`${checkout} is not built: run node bin/build.js there.`)
  })
  const load = async <T>(file: string): Promise<T> => (await import(pathToFileURL(join(checkout, file)).href)) as T
  const { createBenchDatabase } = await load<typeof import('./database.ts')>('bench/database.ts')
  const { startOurs, targetOf } = await load<typeof import('./contenders.ts')>('bench/contenders.ts')
  const servers = await load<typeof import('./servers.ts')>('bench/servers.ts')
  const scale = { organizations: 200, eventsPerOrganization: 100 }
  const database = await createBenchDatabase(serverUrl, `mcp_bench_${run}_${name}`, scale)
  const ours = await startOurs({ DATABASE_URL: database.url }).catch(async (error: unknown) => {
    await database.drop()
    throw error
  })
  const commit = execFileSync('git', ['describe', '--always', '--dirty'], { cwd: checkout }).toString().trim()
  const side: Side = {
    name,
    commit,
    target: targetOf(ours, asker, form),
    pid: ours.pid,
    close: async () => {
      await ours.stop().catch(servers.stopAll)
      await database.drop()
    },
  }
  opened.push(side)
  say(`${name}: ${commit} has started`)
  return side
}

type Sample = { requestsPerSecond: number; p50Ms: number; p99Ms: number; processMs: number }
type Pair = { base: Sample[]; here: Sample[] }

async function compare(base: Side, here: Side, pairs: number): Promise<Pair[]> {
  const load = startLoad()
  const cpu = await openCpuMeter(serverUrl, `mcp\\_bench\\_${run}\\_%`)
  const slice = async ({ name, target, pid }: Side, ms: number): Promise<Sample> => {
    const before = await cpu.read(pid)
    const { answers, failures, failure, requestsPerSecond, p50Ms, p99Ms } = await load.slice(target, connections, ms)
    const after = await cpu.read(pid)
    if (failures) throw new Error(`${name}: ${failures} of ${answers} answers were no good ones: ${failure}`)
    return { requestsPerSecond, p50Ms, p99Ms, processMs: (after.process - before.process) / answers }
  }
  for (const side of [base, here]) {
    // Compilers that work at run time have done so after some thousand answers, however slow the machine.
    let answers = 0
    for (const until = Date.now() + longestWarmUpMs; answers < warmAfter && Date.now() < until;)
      answers += (await load.slice(side.target, connections, 2000)).answers
    say(`${side.name}: warm after ${answers} answers`)
  }
  const measured: Pair[] = []
  for (let i = 0; i < pairs; i += 1) {
    const pair: Pair = { base: [], here: [] }
    for (const side of [base, here, here, base]) pair[side === base ? 'base' : 'here'].push(await slice(side, sliceMs))
    measured.push(pair)
    say(`${i + 1}/${pairs}  ${sums(pair.base)} · ${sums(pair.here)} requests/s`)
  }
  load.stop()
  await cpu.close()
  return measured
}

const mean = (samples: readonly Sample[], of: (sample: Sample) => number): number =>
  samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length
const rate = ({ requestsPerSecond }: Sample): number => requestsPerSecond
const sums = (samples: readonly Sample[]): number => Math.round(mean(samples, rate))
const shown = ({ ratio, lower, upper }: Confidence): string =>
  `${ratio.toFixed(3)} (95 %: ${lower.toFixed(3)} to ${upper.toFixed(3)})`

async function bench(): Promise<number> {
  const base = await start('base', resolve(values.base ?? ''))
  const here = await start('here', root)
  const pairs = await compare(base, here, Number(values.pairs))
  const ratioOf = (of: (sample: Sample) => number): Confidence =>
    confidence(pairs.map((pair) => mean(pair.here, of) / mean(pair.base, of)))
  const throughput = ratioOf(rate)
  const cpuTime = ratioOf(({ processMs }) => processMs)
  const medianOf = (side: 'base' | 'here', of: (sample: Sample) => number) =>
    median(pairs.flatMap((pair) => pair[side].map(of)))
  const sides = Object.fromEntries(
    (['base', 'here'] as const).map((side) => [
      side,
      {
        commit: (side === 'base' ? base : here).commit,
        requestsPerSecond: medianOf(side, rate),
        p50Ms: medianOf(side, ({ p50Ms }) => p50Ms),
        p99Ms: medianOf(side, ({ p99Ms }) => p99Ms),
        processMs: medianOf(side, ({ processMs }) => processMs),
      },
    ]),
  )
  const least = Number(values.least)
  const result = {
    at: new Date().toISOString(),
    machine: `${cpus().length} × ${cpus()[0]?.model.trim()}, load ${loadavg()[0]?.toFixed(1)} at the end`,
    node: process.version,
    asked: values.ask,
    pairs: pairs.length,
    sides,
    throughput,
    cpuTime,
    least,
    holds: throughput.lower >= least,
    samples: pairs,
  }
  const file = join(root, `bench/results/compare-${values.ask}-node${process.versions.node.split('.')[0]}.json`)
  await mkdir(join(file, '..'), { recursive: true })
  await writeFile(file, `${JSON.stringify(result, null, 1)}\n`)
  process.stdout.write(`\n${JSON.stringify(sides, null, 1)}
requests/s, this over base: ${shown(throughput)}
CPU time of the process an answer, this over base: ${shown(cpuTime)}
lower bound asked for: ${least}: ${result.holds ? 'holds' : 'DOES NOT HOLD'}\n`)
  return result.holds ? 0 : 1
}

try {
  process.exitCode = await bench()
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
  process.exitCode = 1
} finally {
  for (const side of opened.reverse()) await side.close().catch((error: unknown) => say(String(error)))
  stopAll()
}
process.exit()
