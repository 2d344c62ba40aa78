import { once } from 'node:events'
import { Agent, createServer, request } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listen, type Listening } from '../../src/listen.ts'
import { serveMetrics } from '../../src/edge/metricsServer.ts'
import { createKey, createService, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'

const viewer = JSON.stringify({ query: '{ viewer { role organization { slug } } }' })

describe('a process that is asked for more than it takes on', () => {
  let world: World
  let org: Organization
  let quiet: Organization
  let server: Listening
  let metricsAt: NonNullable<Awaited<ReturnType<typeof serveMetrics>>>
  beforeAll(async () => {
    world = await createWorld({ MAX_REQUESTS_IN_FLIGHT: '20', METRICS_PORT: '0' })
    org = await seedOrganization(world)
    quiet = await seedOrganization(world)
    server = await listen(world.app, { ...world.platform.config, port: 0 })
    const served = await serveMetrics(world.platform)
    if (!served) throw new Error('no metrics')
    metricsAt = served
  })
  afterAll(async () => {
    await metricsAt.close()
    await server.stop()
    await world.database.drop()
  })

  const ask = (authorization: string): Promise<Response> =>
    fetch(`${server.address}/graphql`, { method: 'POST', headers: { authorization, 'content-type': 'application/json' }, body: viewer }) // prettier-ignore

  /** A request whose body is still to come: it is in work until `finish`, which answers with its status. */
  async function hold({ authorization }: { authorization?: string }) {
    const before = world.app.load.inFlight
    const socket = connect(server.port, '127.0.0.1')
    let heard = ''
    socket.on('data', (chunk) => (heard += chunk.toString()))
    socket.on('error', () => {})
    socket.write(`POST /graphql HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${authorization ? `Authorization: ${authorization}\r\n` : ''}Content-Type: application/json\r\nContent-Length: ${viewer.length}\r\n\r\n`) // prettier-ignore
    while (world.app.load.inFlight === before && !heard) await new Promise((resolve) => setTimeout(resolve, 5))
    return async (): Promise<number> => {
      socket.write(viewer)
      if (!socket.closed) await once(socket, 'close')
      return Number(heard.split(' ')[1])
    }
  }
  const holdAll = async (count: number, as: { authorization?: string }) => {
    const held: Awaited<ReturnType<typeof hold>>[] = []
    for (let i = 0; i < count; i += 1) held.push(await hold(as))
    return held
  }
  /** All that it takes on. */
  const holdTwenty = async () => [
    ...(await holdAll(10, org.viewer)),
    ...(await holdAll(5, quiet.viewer)),
    ...(await holdAll(5, {})),
  ]
  const idle = async (): Promise<void> => {
    while (world.app.load.inFlight > 0) await new Promise((resolve) => setTimeout(resolve, 5))
  }

  it('answers what it has taken on, tells the rest when to come back, and is as before when it is over', async () => {
    const held = await holdTwenty()
    const refused = await ask(org.admin.authorization)
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
    expect(refused.headers.get('x-content-type-options')).toBe('nosniff')
    expect(((await refused.json()) as any).errors[0].extensions).toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
    for (const path of ['/healthz', '/readyz']) expect((await fetch(server.address + path)).status).toBe(200)
    const statuses = await Promise.all(held.map((finish) => finish()))
    expect(statuses).toEqual([...Array<number>(15).fill(200), ...Array<number>(5).fill(401)])
    await idle()
    expect((await ask(org.viewer.authorization)).status).toBe(200)
  })

  it('lets a connection rest whose request it refused, and hears it again on that same connection', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const askOn = async (): Promise<{ status: number | undefined; reused: boolean }> => {
      const asking = request(`${server.address}/graphql`, { agent, method: 'POST', headers: { authorization: org.viewer.authorization, 'content-type': 'application/json' } }) // prettier-ignore
      const answered = once(asking, 'response')
      asking.end(viewer)
      const [response] = (await answered) as [NodeJS.ReadableStream & { statusCode?: number }]
      await once(response.resume(), 'end')
      return { status: response.statusCode, reused: asking.reusedSocket }
    }
    const held = await holdTwenty()
    expect(await askOn()).toEqual({ status: 503, reused: false })
    const refusedAt = performance.now()
    await Promise.all(held.map((finish) => finish()))
    await idle()
    expect(await askOn()).toEqual({ status: 200, reused: true })
    // It is not read from for a quarter of a second.
    expect(performance.now() - refusedAt).toBeGreaterThan(200)
    expect(await askOn()).toEqual({ status: 200, reused: true })
    agent.destroy()
  })

  it('takes on no MCP call beyond either, and counts none that waits for its upstream', async () => {
    const silent = createServer(() => {}).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const caller = await seedOrganization(world)
    const endpoint = `http://127.0.0.1:${(silent.address() as AddressInfo).port}/mcp`
    await createService(world, caller.admin, { slug: 'silent', endpoint })
    const { authorization } = await createKey(world, caller.developer, ['mcp:read'])
    const leaving = new AbortController()
    const call = (signal: AbortSignal | null = null): Promise<Response> =>
      fetch(`${server.address}/mcp/${caller.slug}/silent`, {
        method: 'POST',
        headers: { authorization, 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
        body: '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}',
        signal,
      })
    const settled: unknown[] = []
    const waiting = Array.from({ length: 8 }, () => call(leaving.signal).then((answer) => settled.push(answer), () => {})) // prettier-ignore
    await new Promise((resolve) => setTimeout(resolve, 500))
    expect([settled, world.app.load.inFlight]).toEqual([[], 0])
    const held = await holdTwenty()
    const refused = await call()
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
    const statuses = await Promise.all(held.map((finish) => finish()))
    expect(statuses.slice(0, 15)).toEqual(Array<number>(15).fill(200))
    leaving.abort()
    await Promise.all(waiting)
    silent.close()
    silent.closeAllConnections()
    await idle()
  })

  it('knows of an event loop that is late for longer than it looks, and lets refused connections rest for longer', async () => {
    const rest = world.app.load.restMs
    for (let round = 0; round < 4; round += 1) {
      for (const until = performance.now() + 400; performance.now() < until;);
      await new Promise((resolve) => setTimeout(resolve, 0))
    }
    expect(world.app.load.restMs).toBeGreaterThan(2 * rest)
    await new Promise((resolve) => setTimeout(resolve, 800))
    expect(world.app.load.restMs).toBeLessThan(2 * rest)
  })

  it('keeps room for others when one organisation asks for everything', async () => {
    const held = await holdAll(30, org.viewer)
    expect((await ask(org.viewer.authorization)).status).toBe(503)
    expect((await ask(quiet.viewer.authorization)).status).toBe(200)
    const statuses = await Promise.all(held.map((finish) => finish()))
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(5)
    expect(statuses.filter((status) => status !== 200 && status !== 503)).toEqual([])
    await idle()
  })

  it('says so in its metrics, which name no tenant', async () => {
    const text = await (await fetch(metricsAt.address)).text()
    expect(text).toMatch(/mcp_refused_total\{reason="shed"\} [1-9]/)
    expect(text).toMatch(/mcp_requests_total\{door="graphql",status="200"\} [1-9]/)
    for (const name of ['mcp_request_duration_seconds_bucket', 'mcp_database_busy', 'mcp_database_waiting', 'mcp_bcrypt_waiting', 'nodejs_eventloop_lag_seconds']) expect(text).toContain(name) // prettier-ignore
    for (const secret of [org.id, org.slug, org.viewer.userId, quiet.id]) expect(text).not.toContain(secret)
    expect((await fetch(`${server.address}/metrics`)).status).toBe(404)
    expect((await fetch(metricsAt.address.replace('/metrics', '/'))).status).toBe(404)
    expect(new URL(metricsAt.address).hostname).toBe('127.0.0.1')
  })

  it('refuses a head and a body that are too large', async () => {
    const head = await fetch(`${server.address}/healthz`, { headers: { 'x-long': 'x'.repeat(20_000) } })
    expect(head.status).toBe(431)
    const body = await fetch(`${server.address}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query: '#'.repeat(2 ** 20) }),
    })
    expect(body.status).toBe(413)
  })

  it('closes a connection that trickles', async () => {
    const socket = connect(server.port, '127.0.0.1')
    socket.write('POST /graphql HTTP/1.1\r\nHost: x\r\n')
    let heard = ''
    socket.on('data', (chunk) => (heard += chunk.toString()))
    socket.on('error', () => {})
    const trickle = setInterval(() => socket.write('x-a: b\r\n'), 500)
    await once(socket, 'close')
    clearInterval(trickle)
    expect(heard).toContain('408')
  })
})

it('a platform serves no metrics unless it is told to', async () => {
  const world = await createWorld()
  try {
    expect(await serveMetrics(world.platform)).toBeNull()
  } finally {
    await world.close()
  }
})
