import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { access, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import pg from 'pg'
import { startEmbedded, startOurs, startPeer, targetOf } from './contenders.ts'
import { createBenchDatabase, type BenchDatabase } from './database.ts'
import { openCpuMeter } from './cpu.ts'
import type { Target } from './load.ts'
import { measure, ratio, type Contender, type Measured } from './measure.ts'
import { machine, report, type Promised } from './report.ts'
import { root, startLoad, stopAll, type Started } from './servers.ts'

const help = `npm run bench -- [options]

Measures one nested query, on this platform and on its peers, in turns on one machine, and writes a table and a chart into
bench/results. Makes databases of its own on a PostgreSQL server, and drops them.

  --quick            shorter slices and less data: under two minutes, and less to be trusted
  --only <names>     only contenders of these names, with ; between them, e.g. "Ours, JWT;PostGraphile 5"
  --rounds <n>       rounds of slices (8; 3 when quick)
  --help

DATABASE_URL         the server, as a role that may create databases and roles (postgres://root@127.0.0.1:5432/postgres)
`

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    rounds: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  process.stdout.write(help)
  process.exit(0)
}

const serverUrl = process.env['DATABASE_URL'] ?? 'postgres://root@127.0.0.1:5432/postgres'
const { quick } = values
const began = Date.now()
const say = (text: string): void => void process.stderr.write(`${((Date.now() - began) / 1000).toFixed(0).padStart(4)} s  ${text}\n`) // prettier-ignore
const exec = promisify(execFile)

async function serverVersion(): Promise<string> {
  const client = new pg.Client({ connectionString: serverUrl })
  await client.connect().catch((cause: unknown) => {
    throw new Error(`PostgreSQL does not answer at ${serverUrl.replace(/:[^:@/]+@/, ':…@')}. Set DATABASE_URL.`, {
      cause,
    })
  })
  const { rows } = await client.query<{ server_version: string }>('SHOW server_version').finally(() => client.end())
  return rows[0]?.server_version.split(' ')[0] ?? ''
}

/** The peers have a lockfile of their own, so that the platform's own install stays lean. */
async function installPeers(): Promise<string> {
  const directory = join(root, 'bench/peers')
  const manifest = join(directory, 'node_modules/postgraphile/package.json')
  const installed = await access(manifest).then(() => true, () => false) // prettier-ignore
  if (!installed) {
    say('installing the peers …')
    await exec('npm', ['ci', '--no-audit', '--no-fund'], { cwd: directory })
  }
  const { version } = JSON.parse(await readFile(manifest, 'utf8')) as { version: string }
  return `PostGraphile ${version}`
}

const opened: { drop?: () => Promise<void>; stop?: () => Promise<void> }[] = []
const keep = <T extends BenchDatabase | Started>(one: T): T => (opened.push(one), one)

const names = {
  ten: 'Ours, JWT, ten times the tenants',
  embedded: 'Ours, JWT, embedded database',
  unguarded: 'Same schema, unguarded',
  postgraphile: 'PostGraphile 5',
  handwritten: 'Hand-written SQL',
}
const run = randomBytes(3).toString('hex')

/** What is to be started: each of these stands on processes and data of its own, made only where a contender is wanted. */
async function startAll(wanted: (name: string) => boolean): Promise<Contender[]> {
  const events = quick ? 100 : 1000
  const contenders: Contender[] = []
  const add = (name: string, note: string, server: Started, target: Target): void => {
    if (wanted(name)) contenders.push({ name, note, target, pid: server.pid })
  }
  say('seeding 200 organisations with 2,000 users …')
  const one = keep(await createBenchDatabase(serverUrl, `mcp_bench_${run}_1`, { organizations: 200, eventsPerOrganization: events })) // prettier-ignore
  say('starting ours …')
  const ours = keep(await startOurs({ DATABASE_URL: one.url }))
  add('Ours, JWT', 'rules, RLS, limits, log', ours, targetOf(ours, 'token', 'document'))
  add('Ours, JWT, registered', 'by document id', ours, targetOf(ours, 'token', 'registered'))
  add('Ours, API key, registered', 'by document id', ours, targetOf(ours, 'key', 'registered'))
  add('Ours, API key, registered, GET', 'by document id', ours, targetOf(ours, 'key', 'get'))
  if (wanted(names.ten)) {
    say('seeding ten times as much …')
    const ten = keep(await createBenchDatabase(serverUrl, `mcp_bench_${run}_10`, { organizations: 2000, eventsPerOrganization: events })) // prettier-ignore
    const server = keep(await startOurs({ DATABASE_URL: ten.url }))
    add(names.ten, '2,000 organisations', server, targetOf(server, 'token', 'document'))
  }
  if (wanted(names.embedded)) {
    say('seeding and starting ours on the embedded database …')
    const server = keep(await startEmbedded({ organizations: 200, eventsPerOrganization: quick ? 10 : 1000 }))
    add(names.embedded, 'PGlite, in the process', server, targetOf(server, 'token', 'document'))
  }
  say('starting the peers …')
  for (const [name, note, script] of [
    [names.unguarded, 'Yoga; no rules, no RLS, no auth', 'unguarded.ts'],
    [names.postgraphile, 'RLS by pgSettings, token verified', 'peers/postgraphile.mjs'],
    [names.handwritten, 'RLS, one statement, node:http', 'handwritten.ts'],
  ] as const) {
    if (!wanted(name)) continue
    const peer = keep(await startPeer(script, one.url, ours))
    add(name, note, peer, peer.target)
  }
  return contenders
}

function promises(measured: readonly Measured[]): Promised[] {
  const of = (name: string): Measured => measured.find((each) => each.name === name) as Measured
  const jwt = of('Ours, JWT')
  const postgraphile = of(names.postgraphile)
  const p50 = ({ p50Ms }: { p50Ms: number }): number => p50Ms
  return [
    { what: 'JWT, against PostGraphile 5', value: ratio(jwt, postgraphile), bound: 1 },
    { what: 'JWT and registered, against PostGraphile 5', value: ratio(of('Ours, JWT, registered'), postgraphile), bound: 1.2 },
    { what: 'API key and registered, against PostGraphile 5', value: ratio(of('Ours, API key, registered'), postgraphile), bound: 1.2 },
    { what: 'API key, registered, GET, against PostGraphile 5', value: ratio(of('Ours, API key, registered, GET'), postgraphile), bound: 1.2 },
    { what: 'JWT, against the same schema unguarded', value: ratio(jwt, of(names.unguarded)), bound: 0.8 },
    { what: 'Median latency with ten times the tenants', value: ratio(of(names.ten), jwt, p50), bound: 1.1, atMost: true },
    { what: 'API key (warm), against JWT', value: ratio(of('Ours, API key, registered'), jwt), bound: 0.95 },
    { what: 'API key (warm), against JWT, both registered', value: ratio(of('Ours, API key, registered'), of('Ours, JWT, registered')), bound: 0.95 },
  ] // prettier-ignore
}

async function bench(): Promise<void> {
  const facts = machine(await serverVersion(), await installPeers())
  say('building the platform …')
  await exec(process.execPath, ['bin/build.js'], { cwd: root })
  const words = values.only?.split(';').map((word) => word.trim())
  const contenders = await startAll((name) => !words || words.some((word) => name === word))
  const load = startLoad()
  const cpu = await openCpuMeter(serverUrl, `mcp\\_bench\\_${run}\\_%`)
  const rounds = Number(values.rounds ?? (quick ? 3 : 8))
  const options = { rounds, sliceMs: quick ? 1000 : 2000, warmUpMs: quick ? 4000 : 10_000, connections: 32 }
  say(`measuring ${contenders.length} contenders in ${rounds} rounds …`)
  const measured = await measure(load, cpu, contenders, options, (done, of, line) => say(`${done}/${of}  ${line}`))
  load.stop()
  await cpu.close()
  const base = measured.find(({ name }) => name === names.postgraphile) ?? (measured[0] as Measured)
  const name = words ? 'selected' : quick ? 'quick' : 'nested'
  process.stdout.write(`\n${await report(measured, base, words ? [] : promises(measured), facts, name)}\n`)
}

process.on('SIGINT', () => {
  stopAll()
  void Promise.all(opened.map(async (each) => each.drop?.())).finally(() => process.exit(130))
})
try {
  await bench()
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
  process.exitCode = 1
} finally {
  for (const each of [...opened].reverse()) await (each.stop ?? each.drop)?.().catch(() => {})
}
process.exit()
