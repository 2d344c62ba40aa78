import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { Pool } from 'undici'
import { startOurs, targetOf, type Ours } from './contenders.ts'
import { createBenchDatabase } from './database.ts'
import type { Target } from './load.ts'
import { startLoad, stopAll } from './servers.ts'

const help = `npm run overload -- [--seconds 30] [--times 10] [--pace 20]

Asks the built server on PostgreSQL for ten times what it can do, then lets one tenant flood it while another goes on at a
steady pace, and says whether it keeps its promises: every answer is 200, 429 or 503 and comes in time, memory stays bounded,
latency is back within five seconds, and the neighbour's p99 less than doubles. Exit code 1 where one does not hold.

  --seconds <n>   length of the overload, and of each half of the neighbour's (30)
  --times <n>     how many times its capacity (10)
  --pace <n>      requests a second of the steady neighbour (20)

DATABASE_URL      a server, as a role that may create databases and roles (postgres://root@127.0.0.1:5432/postgres)
`
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '30' },
    times: { type: 'string', default: '10' },
    pace: { type: 'string', default: '20' },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  process.stdout.write(help)
  process.exit(0)
}
const seconds = Number(values.seconds)
const times = Number(values.times)
const pace = Number(values.pace)
const serverUrl = process.env['DATABASE_URL'] ?? 'postgres://root@127.0.0.1:5432/postgres'

/** What is promised. */
const bounds = { longestMs: 30_000, peakMebibytes: 1024, recoverySeconds: 5, neighbourRatio: 2 }
/** So much more than its capacity counts as what was asked for; the clock of the generator is not exact. */
const leastOffered = 0.9
const floodConnections = 64
/** A question that takes some milliseconds, so that one generator can ask for ten times what the process can answer. */
const heavy = `query Heavy { ${Array.from({ length: 12 }, (_, i) => `l${i}: requestLog(first: 50) { edges { node { id service tool status durationMs createdAt } } }`).join(' ')} }`
/** What one generator keeps under way; it offers no more, and says what it offered. */
const mostUnderWay = 2000

const say = (line: string): void => void process.stdout.write(`${line}\n`)
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
const percentile = (values: readonly number[], part: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? Number.NaN
const ms = (value: number): string => `${value.toFixed(1)} ms`

let broken = 0
function promise(kept: boolean, line: string): void {
  if (!kept) broken += 1
  say(`${kept ? 'kept  ' : 'BROKEN'}  ${line}`)
}

type Answered = { status: number; ms: number; at: number }

/** Sends at a rate, whatever comes back; 0 stands for an answer that did not come. */
async function sendAt(pool: Pool, target: Target, perSecond: number, forMs: number): Promise<Answered[]> {
  const answers: Answered[] = []
  let underWay = 0
  let sent = 0
  const one = async (): Promise<void> => {
    const { body = null, ...call } = target.calls[sent % target.calls.length] as Target['calls'][number]
    const began = performance.now()
    underWay += 1
    const status = await pool
      .request({ method: target.method, ...call, body })
      .then(async (response) => (await response.body.dump(), response.statusCode), () => 0) // prettier-ignore
    underWay -= 1
    answers.push({ status, ms: performance.now() - began, at: performance.now() })
  }
  const began = performance.now()
  const all: Promise<void>[] = []
  let due = 0
  while (performance.now() - began < forMs) {
    due = Math.max(due, ((performance.now() - began) / 1000) * perSecond)
    for (; sent < due && underWay < mostUnderWay; sent += 1) all.push(one())
    due = Math.min(due, sent + 1)
    await pause(Math.min(5, 1000 / perSecond))
  }
  await Promise.all(all)
  return answers
}

const only = (target: Target, from: number, to: number): Target => ({ ...target, calls: target.calls.slice(from, to) })

async function residentMebibytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN) / 1024
}

const started: { stop?: () => unknown; drop?: () => Promise<void> }[] = []

/** Ten times what it can do: everybody is answered, memory is bounded, and it is soon as before. */
async function overload(ours: Ours, load: ReturnType<typeof startLoad>): Promise<void> {
  const light = targetOf(ours, 'token', 'document')
  const target = { ...light, calls: light.calls.map((call) => ({ ...call, body: JSON.stringify({ query: heavy }) })) }
  const crowd = only(target, 0, 24)
  const bystander = only(target, 24, 28)
  const pool = new Pool(ours.origin, { connections: mostUnderWay, pipelining: 1 })
  await load.slice(crowd, 16, 3000)
  const { requestsPerSecond: capacity } = await load.slice(crowd, 16, 3000)
  const normal = (await sendAt(pool, bystander, pace, 3000)).map((answer) => answer.ms)
  const before = await residentMebibytes(ours.pid)
  let peak = before
  const watch = setInterval(() => void residentMebibytes(ours.pid).then((now) => (peak = Math.max(peak, now))), 200)
  say(`capacity ${capacity.toFixed(0)}/s; normal p50 ${ms(percentile(normal, 0.5))}, p99 ${ms(percentile(normal, 0.99))}; asking for ${(capacity * times).toFixed(0)}/s over ${seconds} s …`) // prettier-ignore
  const answers = await sendAt(pool, crowd, capacity * times, seconds * 1000)
  const over = performance.now()
  const after = await sendAt(pool, bystander, pace, (bounds.recoverySeconds + 3) * 1000)
  clearInterval(watch)
  const counts = new Map<number, number>()
  for (const { status } of answers) counts.set(status, (counts.get(status) ?? 0) + 1)
  const of = (status: number): number[] => answers.filter((each) => each.status === status).map((each) => each.ms)
  const longest = answers.reduce((most, each) => Math.max(most, each.ms), 0)
  say(`offered ${answers.length} requests, ${(answers.length / seconds / capacity).toFixed(1)} times the capacity: ` +
    [...counts].sort().map(([status, count]) => `${count} × ${status || 'no answer'} (p99 ${ms(percentile(of(status), 0.99))})`).join(', ')) // prettier-ignore
  promise(answers.length >= leastOffered * times * capacity * seconds, `the generator offers what it is to: ${(answers.length / seconds).toFixed(0)}/s`) // prettier-ignore
  promise(
    [...counts.keys()].every((status) => [200, 429, 503].includes(status)),
    'every answer is 200, 429 or 503',
  )
  promise((counts.get(200) ?? 0) > 0, `it goes on working: ${((counts.get(200) ?? 0) / seconds).toFixed(0)} good answers a second`) // prettier-ignore
  promise(longest <= bounds.longestMs, `longest ${ms(longest)}, p99 ${ms(percentile(answers.map((each) => each.ms), 0.99))} (at the most ${bounds.longestMs} ms)`) // prettier-ignore
  promise(peak <= bounds.peakMebibytes, `resident memory ${before.toFixed(0)} MiB before, ${peak.toFixed(0)} at the peak, ${(await residentMebibytes(ours.pid)).toFixed(0)} after (at the most ${bounds.peakMebibytes})`) // prettier-ignore
  // Normal again from the first answer on after which the median of ten is no more than twice the median of before.
  const normalAgain = after.find(
    (_, i) => percentile(after.slice(i, i + 10).map((each) => each.ms), 0.5) <= 2 * percentile(normal, 0.5) && after.slice(i, i + 10).every(({ status }) => status === 200), // prettier-ignore
  )
  const recovery = normalAgain ? (normalAgain.at - over) / 1000 : Number.POSITIVE_INFINITY
  promise(recovery <= bounds.recoverySeconds, `back to normal latency after ${recovery.toFixed(2)} s (at the most ${bounds.recoverySeconds} s)`) // prettier-ignore
  await pool.destroy()
}

/** One tenant floods from many connections, another sends what it always does. */
async function neighbour(ours: Ours): Promise<void> {
  const target = targetOf(ours, 'token', 'document')
  const pool = new Pool(ours.origin, { connections: 64, pipelining: 1 })
  const steady = only(target, 28, 29)
  const flooder = only(target, 29, 30)
  const half = async (): Promise<number[]> => {
    const answers = await sendAt(pool, steady, pace, seconds * 1000)
    const refused = answers.filter(({ status }) => status !== 200).length
    if (refused) promise(false, `${refused} of the neighbour’s ${answers.length} requests were not answered with 200`)
    return answers.map((each) => each.ms)
  }
  await sendAt(pool, steady, pace, 2000)
  const quiet = await half()
  // A process of its own, whose connections are as many as it asks for.
  const load = startLoad()
  started.push(load)
  const flood = load.slice(flooder, floodConnections, seconds * 1000 + 1000)
  await pause(1000)
  const flooded = await half()
  const { requestsPerSecond, failures, answers } = await flood
  const [p50s, p99s] = [0.5, 0.99].map((part) => [percentile(quiet, part), percentile(flooded, part)] as const)
  const ratio = (p99s?.[1] ?? Number.NaN) / (p99s?.[0] ?? Number.NaN)
  say(`one tenant floods from ${floodConnections} connections: ${requestsPerSecond.toFixed(0)}/s, ${answers - failures} of ${answers} answered with 200`) // prettier-ignore
  promise(ratio < bounds.neighbourRatio, `its neighbour at ${pace}/s: p99 ${ms(p99s?.[0] ?? 0)} quiet, ${ms(p99s?.[1] ?? 0)} flooded: ${ratio.toFixed(2)} times (less than ${bounds.neighbourRatio}); p50 ${ms(p50s?.[0] ?? 0)} and ${ms(p50s?.[1] ?? 0)}`) // prettier-ignore
  await pool.destroy()
}
process.on('SIGINT', () => {
  stopAll()
  void Promise.all(started.map(async (each) => each.drop?.())).finally(() => process.exit(130))
})
try {
  say(`Node ${process.version}, ${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)} before anything was started`)
  const name = `mcp_overload_${randomBytes(3).toString('hex')}`
  const database = await createBenchDatabase(serverUrl, name, { organizations: 200, eventsPerOrganization: 100 })
  started.push(database)
  const ours = await startOurs({ DATABASE_URL: database.url })
  started.push(ours)
  const load = startLoad()
  started.push(load)
  await overload(ours, load)
  // The crowd's minute of allowance has passed by then, and the two tenants have not spent of theirs.
  await neighbour(ours)
  if (broken) process.exitCode = 1
} finally {
  for (const each of [...started].reverse()) await (each.stop ?? each.drop)?.()
}
process.exit()
