import { Agent, request } from 'node:http'
import { randomInt } from 'node:crypto'
import { start, type Running } from '../harness/process.ts'
import { settle, type Site } from '../conformance/site.ts'
import { startEcho } from './echo.ts'

export type Outcome = {
  ends: number
  /** Calls whose answer arrived, and what is kept of them. */
  answered: number
  missing: number[]
  twice: number[]
  /** Rows of the log, which may be more: a call can be recorded and its answer lost with the process. */
  rows: number
  counted: number
  /** Acknowledged writes, and those that are gone. */
  written: number
  gone: string[]
  /** Requests that a graceful stop broke off. */
  cut: number
}

const workers = 16
const writers = 2
const settings = {
  DEMO: 'off',
  UPSTREAM_ALLOWED_CIDRS: '127.0.0.0/8',
  LOG_LEVEL: 'error',
  ACCESS_TOKEN_TTL_SECONDS: '86400',
  COST_PER_CREDENTIAL_PER_MINUTE: '0',
  COST_PER_USER_PER_MINUTE: '0',
  COST_PER_ORGANIZATION_PER_MINUTE: '0',
  SHUTDOWN_TIMEOUT_SECONDS: '60',
}

type Load = { answered: number[]; written: string[]; cut: number; stop: () => Promise<void> }

type Reply = { status: number; body: string }

/** Rejects with `refused` set where the request never reached the process. */
function post(agent: Agent, url: URL, authorization: string, body: object): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const headers = {
      authorization,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
    }
    const sent = request(url, { method: 'POST', agent, headers }, (response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => (text += chunk.toString()))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }))
      response.on('error', reject)
    })
    sent.on('error', reject)
    sent.end(JSON.stringify(body))
  })
}

/** Calls and writes from all sides until the process is gone. */
function loadOn(address: string, path: string, site: Site, next: () => number): Load {
  const agent = new Agent({ keepAlive: true, maxSockets: workers + writers })
  const load: Load = { answered: [], written: [], cut: 0, stop: () => done.then(() => agent.destroy()) }
  const until = async (work: () => Promise<boolean>): Promise<void> => {
    for (;;) {
      try {
        if (!(await work())) return
      } catch (error) {
        // A connection that is refused was never made; anything else was broken off.
        if ((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED') load.cut++
        return
      }
    }
  }
  const call = async (): Promise<boolean> => {
    const n = next()
    const params = { name: 'echo', arguments: { n } }
    const { status, body } = await post(agent, new URL(path, address), site.authorization, { jsonrpc: '2.0', id: n, method: 'tools/call', params }) // prettier-ignore
    if (status === 200 && body.includes('"result"')) load.answered.push(n)
    return status === 200
  }
  const write = async (): Promise<boolean> => {
    const slug = `w-${next()}`
    const query = 'mutation ($input: CreateServiceInput!) { createService(input: $input) { slug } }'
    const input = { slug, name: slug, endpoint: 'https://upstream.example/mcp' }
    const { status, body } = await post(agent, new URL('/graphql', address), site.session, { query, variables: { input } }) // prettier-ignore
    if (status === 200 && body.includes(`"${slug}"`)) load.written.push(slug)
    return status === 200
  }
  const done = Promise.all([
    ...Array.from({ length: workers }, () => until(call)),
    ...Array.from({ length: writers }, () => until(write)),
  ]).then(() => undefined)
  return load
}

type Page<T> = { edges: { node: T }[]; pageInfo: { hasNextPage: boolean; endCursor: string } }

async function all<T>(site: Site, field: string, selection: string): Promise<T[]> {
  const nodes: T[] = []
  for (let after = ''; ;) {
    const args = `first: 100${after ? `, after: "${after}"` : ''}`
    const data = await site.graphql(`{ ${field}(${args}) { edges { node { ${selection} } } pageInfo { hasNextPage endCursor } } }`) // prettier-ignore
    const page = data[field] as Page<T>
    nodes.push(...page.edges.map(({ node }) => node))
    if (!page.pageInfo.hasNextPage) return nodes
    after = page.pageInfo.endCursor
  }
}

export type CrashOptions = {
  /** Where the platform keeps its data. */
  data: Record<string, string>
  /** One for each end. */
  signals: readonly ('SIGKILL' | 'SIGTERM')[]
  onEnd?: (line: string) => void
}

/** Ends a platform under load, signal after signal, and looks after each start for everything that it had acknowledged. */
export async function crash({ data, signals, onEnd = () => undefined }: CrashOptions): Promise<Outcome> {
  const echo = await startEcho()
  let n = 1
  let running: Running = await start({ ...settings, ...data })
  let site = await settle(running.address)
  const path = await site.add('echo', echo.url)
  const answered: number[] = []
  const written: string[] = []
  let cut = 0
  try {
    for (const [i, signal] of signals.entries()) {
      const load = loadOn(running.address, path, site, () => n++)
      while (load.answered.length < 20) await new Promise((resolve) => setTimeout(resolve, 20))
      await new Promise((resolve) => setTimeout(resolve, randomInt(50, 500)))
      running.signal(signal)
      await running.exited
      await load.stop()
      answered.push(...load.answered)
      written.push(...load.written)
      if (signal === 'SIGTERM') cut += load.cut
      running = await start({ ...settings, ...data })
      site = site.at(running.address)
      onEnd(`${signal} ${i + 1}: ${load.answered.length} calls answered, ${load.written.length} writes acknowledged`)
    }
    return { ends: signals.length, cut, ...(await kept(site, answered, written)) }
  } finally {
    await running.stop()
    await echo.close()
  }
}

type Row = { arguments: { n: number } | null; tool: string }

async function kept(site: Site, answered: number[], written: string[]): Promise<Omit<Outcome, 'ends' | 'cut'>> {
  const rows = await all<Row>(site, 'requestLog', 'tool arguments')
  const usage = await all<{ tool: string; calls: number }>(site, 'usage', 'tool calls')
  const services = new Set((await all<{ slug: string }>(site, 'services', 'slug')).map(({ slug }) => slug))
  const seen = new Map<number, number>()
  for (const row of rows) if (row.arguments) seen.set(row.arguments.n, (seen.get(row.arguments.n) ?? 0) + 1)
  return {
    answered: answered.length,
    missing: answered.filter((n) => !seen.has(n)),
    twice: [...seen].filter(([, times]) => times > 1).map(([n]) => n),
    rows: rows.filter(({ tool }) => tool === 'echo').length,
    counted: usage.filter(({ tool }) => tool === 'echo').reduce((sum, { calls }) => sum + calls, 0),
    written: written.length,
    gone: written.filter((slug) => !services.has(slug)),
  }
}
