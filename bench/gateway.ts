/**
 * What the gateway costs: the same calls direct to an upstream and through the platform, with a key, distinct arguments and
 * the request log on; each side on a core of its own where `taskset` is. `npm run bench:gateway`
 * Upstreams: the SDK's own server with one tool that echoes, in the legacy and in the 2026-07-28 era.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { settle } from '../test/conformance/site.ts'
import { root, start } from '../test/harness/process.ts'
import { median } from './measure.ts'
import { promisesTable, type Promised } from './report.ts'

type Era = 'legacy' | 'modern'
type Target = { url: URL; headers: Record<string, string> }
type Slice = { p50: number; p99: number; perSecond: number }

const eras: Era[] = ['legacy', 'modern']
/** The concurrency of the most throughput. */
const most = 32
const concurrencies = [1, 8, most]
const sliceMs = Number(process.env['BENCH_SLICE_MS'] ?? 1000)
const rounds = 7
const warmUpMs = sliceMs * 10
let n = 0

async function pin(pid: number, core: number): Promise<boolean> {
  const child = spawn('taskset', ['-a', '-cp', String(core), String(pid)], { stdio: 'ignore' })
  return new Promise((resolve) => {
    child.once('error', () => resolve(false))
    child.once('exit', (code) => resolve(code === 0))
  })
}

async function startUpstream(era: Era): Promise<{ url: string; pid: number; stop: () => void }> {
  const child = spawn(process.execPath, ['--import', 'tsx', join(root, 'bench/echoServer.ts'), era], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  return { url: line.toString().trim(), pid: child.pid ?? 0, stop: () => void child.kill() }
}

const meta = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientInfo': { name: 'bench', version: '1' },
  'io.modelcontextprotocol/clientCapabilities': {},
}

function post(agent: Agent, { url, headers }: Target, body: object): Promise<{ text: string; session: string | undefined }> {
  return new Promise((resolve, reject) => {
    const fixed = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' }
    const sent = request(url, { method: 'POST', agent, headers: { ...fixed, ...headers } }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString()
        const session = response.headers['mcp-session-id']
        if ((response.statusCode ?? 500) >= 300) reject(new Error(`${response.statusCode}: ${text}`))
        else resolve({ text, session: typeof session === 'string' ? session : undefined })
      })
    })
    sent.on('error', reject)
    sent.end(JSON.stringify({ jsonrpc: '2.0', ...body }))
  })
} // prettier-ignore

/** A client that has said hello where its era has one. */
async function connected(agent: Agent, era: Era, target: Target): Promise<Target> {
  if (era === 'modern')
    return {
      ...target,
      headers: {
        ...target.headers,
        'mcp-protocol-version': '2026-07-28',
        'mcp-method': 'tools/call',
        'mcp-name': 'echo',
      },
    }
  const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'bench', version: '1' } }
  const { session } = await post(agent, target, { id: 0, method: 'initialize', params })
  const headers = { ...target.headers, 'mcp-protocol-version': '2025-11-25', 'mcp-session-id': session ?? '' }
  await post(agent, { ...target, headers }, { method: 'notifications/initialized' })
  return { ...target, headers }
}

async function slice(era: Era, target: Target, concurrency: number, lastsMs = sliceMs): Promise<Slice> {
  const agent = new Agent({ keepAlive: true, maxSockets: concurrency })
  const at = await connected(agent, era, target)
  const times: number[] = []
  const until = performance.now() + lastsMs
  const began = performance.now()
  const worker = async (): Promise<void> => {
    while (performance.now() < until) {
      const mine = ++n
      const since = performance.now()
      const params = { name: 'echo', arguments: { n: mine }, ...(era === 'modern' ? { _meta: meta } : {}) }
      const { text } = await post(agent, at, { id: mine, method: 'tools/call', params })
      times.push(performance.now() - since)
      if (!text.includes(String(mine))) throw new Error(`the answer of another call: ${text}`)
    }
  }
  await Promise.all(Array.from({ length: concurrency }, worker))
  agent.destroy()
  const perSecond = (times.length / (performance.now() - began)) * 1000
  times.sort((x, y) => x - y)
  return { p50: percentile(times, 0.5), p99: percentile(times, 0.99), perSecond }
}

const percentile = (sorted: readonly number[], share: number): number =>
  sorted[Math.floor(sorted.length * share)] ?? NaN

type Compared = { direct: Slice; through: Slice }

/**
 * Slices of both sides in turn, each other round backwards, so that whatever else the machine does meets both; what compares
 * them is taken within a round.
 */
async function compare(era: Era, direct: Target, through: Target, concurrency: number): Promise<Compared[]> {
  const compared: Compared[] = []
  for (let round = -1; round < rounds; round++) {
    const first = await slice(era, round % 2 ? direct : through, concurrency)
    const second = await slice(era, round % 2 ? through : direct, concurrency)
    if (round < 0) continue // warming up
    compared.push(round % 2 ? { direct: first, through: second } : { direct: second, through: first })
  }
  return compared
}

const of = (compared: readonly Compared[], figure: (one: Compared) => number): number => median(compared.map(figure))
const added = (compared: readonly Compared[]): number => of(compared, ({ direct, through }) => through.p50 - direct.p50)
const share = (compared: readonly Compared[]): number =>
  of(compared, ({ direct, through }) => through.perSecond / direct.perSecond)

const directory = await mkdtemp(join(tmpdir(), 'mcp-bench-'))
const database = process.env['TEST_DATABASE_URL']
const platform = await start({
  DATA_DIR: directory,
  DEMO: 'off',
  UPSTREAM_ALLOWED_CIDRS: '127.0.0.0/8',
  LOG_LEVEL: 'warn',
  ACCESS_TOKEN_TTL_SECONDS: '86400',
  COST_PER_CREDENTIAL_PER_MINUTE: '0',
  COST_PER_USER_PER_MINUTE: '0',
  COST_PER_ORGANIZATION_PER_MINUTE: '0',
  ...(database ? { DATABASE_URL: database } : {}),
})
const site = await settle(platform.address)
const pinned = await pin(platform.pid, 0)
const lines: string[] = []
const say = (line: string): void => {
  lines.push(line)
  process.stdout.write(`${line}\n`)
}
const promises: Promised[] = []
say('| Era | c | direct p50 | through p50 | added p50 | through p99 | direct/s | through/s | share |')
say('| --- | --- | --- | --- | --- | --- | --- | --- | --- |')
for (const era of eras) {
  const upstream = await startUpstream(era)
  if (pinned) await pin(upstream.pid, cpus().length - 1)
  const path = await site.add(era, upstream.url)
  const direct = { url: new URL(upstream.url), headers: {} }
  const through = { url: new URL(path, platform.address), headers: { authorization: site.authorization } }
  // Until both have run each of their ways often enough to be compiled for it.
  for (const target of [direct, through]) await slice(era, target, 8, warmUpMs)
  for (const concurrency of concurrencies) {
    const compared = await compare(era, direct, through, concurrency)
    const ms = (value: number): string => `${value.toFixed(2)} ms`
    const cells = [
      era,
      concurrency,
      ms(of(compared, (one) => one.direct.p50)),
      ms(of(compared, (one) => one.through.p50)),
      ms(added(compared)),
      ms(of(compared, (one) => one.through.p99)),
      of(compared, (one) => one.direct.perSecond).toFixed(0),
      of(compared, (one) => one.through.perSecond).toFixed(0),
      `${(share(compared) * 100).toFixed(0)}%`,
    ]
    say(`| ${cells.join(' | ')} |`)
    if (concurrency === 1)
      promises.push({ what: `${era}: ms added at c = 1`, value: added(compared), bound: 2, atMost: true })
    if (concurrency === most)
      promises.push({
        what: `${era}: share of the direct throughput at c = ${most}`,
        value: share(compared),
        bound: 0.4,
      })
  }
  upstream.stop()
}
const kept = promisesTable(promises, 'median over the rounds')
process.stdout.write(`\n${kept}\n`)
await platform.stop()
await rm(directory, { recursive: true })
const [{ model } = { model: 'unknown' }] = cpus()
const facts = [
  `${new Date().toISOString()}, Node ${process.version}, ${model}, ${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)}`,
  `${database ? 'PostgreSQL' : 'embedded database'}; ${pinned ? 'platform and upstream on a core each, the client on either' : 'nothing pinned'}; medians over ${rounds} rounds of slices of ${sliceMs} ms, in turns.`,
]
await mkdir(join(root, 'bench/results'), { recursive: true })
await writeFile(
  join(root, 'bench/results/gateway.md'),
  `# The gateway’s cost\n\n${facts.join('\n\n')}\n\n${lines.join('\n')}\n\n${kept}\n`,
)
