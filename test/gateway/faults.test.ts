import type { ServerResponse } from 'node:http'
import { connect as dial } from 'node:net'
import { afterEach, expect, it } from 'vitest'
import { connect, mount, passage, type Mounted } from './peers/gateway.ts'
import { listen, type Peer } from './peers/http.ts'
import { startRecorder } from './peers/recorder.ts'

const toClose: { close: () => Promise<void> }[] = []
const keep = <T extends { close: () => Promise<void> }>(closable: T): T => (toClose.push(closable), closable)
afterEach(async () => {
  for (const each of toClose.splice(0)) await each.close()
})

const json = { 'content-type': 'application/json' }
type Misbehaviour = (response: ServerResponse, id: number) => void

/** A legacy upstream with one tool, that does everything right until the tool is called. */
async function upstreamThat(misbehaves: Misbehaviour): Promise<Peer> {
  return listen((request, response) => {
    if (request.method !== 'POST') return void response.writeHead(405).end()
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { id, method } = JSON.parse(Buffer.concat(chunks).toString()) as { id?: number; method: string }
      const answer = (result: unknown) =>
        void response.writeHead(200, json).end(JSON.stringify({ jsonrpc: '2.0', id, result }))
      if (method === 'initialize')
        return answer({
          protocolVersion: '2025-06-18',
          capabilities: { tools: {} },
          serverInfo: { name: 'fault', version: '1' },
        })
      if (method === 'tools/list') return answer({ tools: [{ name: 't', inputSchema: { type: 'object' } }] })
      if (id === undefined) return void response.writeHead(202).end()
      if (method === 'tools/call') return misbehaves(response, id)
      response
        .writeHead(200, json)
        .end(JSON.stringify({ jsonrpc: '2.0', id, error: { code: -32601, message: 'Method not found' } }))
    })
  })
}

async function callOn(mounted: Mounted, url: string): Promise<unknown> {
  return mounted.gateway.callTool(passage({ url }), { name: 't', requestId: 'r' }).catch((error: unknown) => error)
}

const endless = Buffer.alloc(64 * 1024, 'x')
const flood = (response: ServerResponse): void => {
  while (!response.destroyed && response.write(endless));
  response.once('drain', () => flood(response))
}

const faults: Record<string, { misbehaves: Misbehaviour; code: string }> = {
  'never answers': { misbehaves: () => undefined, code: 'UPSTREAM_TIMEOUT' },
  'begins a stream and falls silent': {
    misbehaves: (response) =>
      void response.writeHead(200, { 'content-type': 'text/event-stream' }).write(': hello\n\n'),
    code: 'UPSTREAM_TIMEOUT',
  },
  'ends a stream without an answer': {
    misbehaves: (response) => void response.writeHead(200, { 'content-type': 'text/event-stream' }).end(': bye\n\n'),
    code: 'UPSTREAM_ERROR',
  },
  'resets the connection in the middle of a stream': {
    misbehaves: (response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: {"jsonrpc":')
      setImmediate(() => response.socket?.resetAndDestroy())
    },
    code: 'UPSTREAM_ERROR',
  },
  'resets the connection at once': {
    misbehaves: (response) => void response.socket?.resetAndDestroy(),
    code: 'UPSTREAM_ERROR',
  },
  'sends garbage as JSON': {
    misbehaves: (response) => void response.writeHead(200, json).end('{"jsonrpc": nonsense'),
    code: 'UPSTREAM_ERROR',
  },
  'sends garbage as a stream': {
    misbehaves: (response) =>
      void response.writeHead(200, { 'content-type': 'text/event-stream' }).end('data: nonsense\n\n'),
    code: 'UPSTREAM_ERROR',
  },
  'answers with a page': {
    misbehaves: (response) => void response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Hello</h1>'),
    code: 'UPSTREAM_ERROR',
  },
  'answers another request': {
    misbehaves: (response) => void response.writeHead(200, json).end('{"jsonrpc":"2.0","id":7,"result":{}}'),
    code: 'UPSTREAM_ERROR',
  },
  'fails with a stack trace': {
    misbehaves: (response) => void response.writeHead(500, json).end('{"error":"at /srv/secret.js:1"}'),
    code: 'UPSTREAM_ERROR',
  },
  'refuses the credential': { misbehaves: (response) => void response.writeHead(401).end(), code: 'UPSTREAM_ERROR' },
  'redirects to another host': {
    misbehaves: (response) =>
      void response.writeHead(307, { location: 'http://169.254.169.254/latest/meta-data' }).end(),
    code: 'UPSTREAM_ERROR',
  },
  'redirects in a circle': {
    misbehaves: (response) => void response.writeHead(307, { location: '/mcp' }).end(),
    code: 'UPSTREAM_ERROR',
  },
  'sends JSON without end': { misbehaves: (response) => flood(response.writeHead(200, json)), code: 'UPSTREAM_ERROR' },
  'sends a stream without end': {
    misbehaves: (response) => flood(response.writeHead(200, { 'content-type': 'text/event-stream' })),
    code: 'UPSTREAM_ERROR',
  },
}

it.each(Object.entries(faults))(
  'tells the caller in time when an upstream %s, and works on',
  async (_, { misbehaves, code }) => {
    const mounted = keep(await mount({ requestMs: 300, connectMs: 2000, maxResultBytes: 500_000 }))
    const bad = keep(await upstreamThat(misbehaves))
    const good = keep(await startRecorder('modern'))
    const failure = callOn(mounted, bad.url)
    const { content } = await mounted.gateway.callTool(passage({ url: good.url }), {
      name: 'whoami',
      arguments: { n: 1 },
      requestId: 'r',
    })
    expect(content).toEqual([{ type: 'text', text: 'nobody#1' }])
    expect(await failure).toMatchObject({ name: 'AppError', code })
    expect(mounted.records.find(({ tool }) => tool === 't')?.status).toBe(code.toLowerCase())

    const client = await connect(mounted.door(passage({ url: bad.url })), 'auto')
    const told: unknown = await client.callTool({ name: 't' }).catch((error: unknown) => error)
    expect(told).toMatchObject({ code: -32603, data: { code, requestId: 'request-of-ada' } })
    expect(JSON.stringify(told) + String(told)).not.toMatch(/secret|169\.254|127\.0\.0\.1|ECONN/)
    await client.close()
  },
)

it('tells every caller at once that an upstream is not there, and finds it again when it is back', async () => {
  const mounted = keep(await mount())
  const gone = await listen((_, response) => void response.end())
  await gone.close()
  const of = passage({ url: gone.url })
  expect(await callOn(mounted, gone.url)).toMatchObject({ code: 'UPSTREAM_ERROR' })
  for (const mode of ['legacy', 'auto'] as const)
    await expect(connect(mounted.door(of), mode)).rejects.toThrow(/Upstream error: The service could not be reached/)
})

it('gives up an upstream that accepts a connection and never speaks', async () => {
  const mounted = keep(await mount({ connectMs: 200 }))
  const silent = keep(await listen(() => undefined))
  expect(await callOn(mounted, silent.url)).toMatchObject({ code: 'UPSTREAM_TIMEOUT' })
  expect(mounted.records).toMatchObject([{ status: 'upstream_timeout', tool: 't' }])
})

it('holds back more calls than an upstream may have at a time, and refuses those that would wait too long', async () => {
  const mounted = keep(await mount({ maxConcurrentPerTarget: 1 }))
  const waiting: (() => void)[] = []
  const slow = keep(
    await upstreamThat(
      (response, id) =>
        void waiting.push(() =>
          response.writeHead(200, json).end(JSON.stringify({ jsonrpc: '2.0', id, result: { content: [] } })),
        ),
    ),
  )
  const calls = Array.from({ length: 6 }, () => callOn(mounted, slow.url))
  await expect.poll(() => mounted.records.length).toBe(1)
  for (let n = 1; n <= 5; n++) {
    await expect.poll(() => waiting.length).toBe(1)
    waiting.pop()?.()
  }
  const outcomes = await Promise.all(calls)
  expect(outcomes.filter((each) => (each as { code?: string }).code === 'RATE_LIMITED')).toHaveLength(1)
  expect(outcomes.filter((each) => 'content' in (each as object))).toHaveLength(5)
})

it('closes the connection that was used longest ago when there are too many, and each one when nobody uses it', async () => {
  const mounted = keep(await mount({ maxPool: 2, poolIdleMs: 100 }))
  const peers = await Promise.all([1, 2, 3].map(() => startRecorder('legacy')))
  for (const peer of peers) {
    keep(peer)
    await mounted.gateway.listTools(passage({ url: peer.url }))
  }
  const deleted = (n: number) => peers[n]?.seen.some(({ method }) => method === 'DELETE')
  for (const n of [0, 1, 2]) await expect.poll(() => deleted(n)).toBe(true)
})

it('stops its work when the client goes away without a word', async () => {
  const mounted = keep(await mount())
  let closed = false
  const slow = keep(await upstreamThat((response) => void response.once('close', () => (closed = true))))
  const door = mounted.door(passage({ url: slow.url }))
  const socket = dial(Number(door.port), '127.0.0.1')
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 't' } })
  socket.write(
    `POST ${door.pathname} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
  )
  setTimeout(() => socket.destroy(), 200)
  await expect.poll(() => closed).toBe(true)
  await expect.poll(() => mounted.records.at(-1)?.status).toBe('cancelled')
})

it('does not answer before the record is durable, and not at all without it', async () => {
  const upstream = keep(await startRecorder('modern'))
  const mounted = keep(await mount())
  const order: string[] = []
  mounted.onRecord = async () => {
    await new Promise((resolve) => setImmediate(resolve))
    order.push('recorded')
  }
  await mounted.gateway.callTool(passage({ url: upstream.url }), {
    name: 'whoami',
    arguments: { n: 1 },
    requestId: 'r',
  })
  order.push('answered')
  expect(order).toEqual(['recorded', 'answered'])
  mounted.onRecord = () => Promise.reject(new Error('disk full'))
  const client = await connect(mounted.door(passage({ url: upstream.url })), 'auto')
  const told: unknown = await client.callTool({ name: 'whoami', arguments: { n: 1 } }).catch((error: unknown) => error)
  expect(told).toMatchObject({ code: -32603, message: 'Internal error', data: { code: 'INTERNAL_SERVER_ERROR' } })
  await client.close()
})

it('refuses requests that are not MCP', async () => {
  const upstream = keep(await startRecorder('legacy'))
  const mounted = keep(await mount())
  const door = mounted.door(passage({ url: upstream.url }))
  const send = async (body: string, headers: Record<string, string> = {}) => {
    const response = await fetch(door, {
      method: 'POST',
      body,
      headers: { ...json, accept: 'application/json, text/event-stream', ...headers },
    })
    return { status: response.status, body: (await response.json()) as { error?: { code: number } } }
  }
  expect(await send('{')).toMatchObject({ status: 400, body: { error: { code: -32700 } } })
  expect(await send('[]')).toMatchObject({ status: 400, body: { error: { code: -32600 } } })
  expect(await send('"ping"')).toMatchObject({ status: 400 })
  expect(await send('{}', { 'content-type': 'text/plain' })).toMatchObject({ status: 415 })
  expect(await send('{"jsonrpc":"2.0","id":1,"method":"ping"}', { 'mcp-session-id': 'made-up' })).toMatchObject({
    status: 404,
  })
  expect(
    await send('{"jsonrpc":"2.0","id":1,"method":"ping"}', { 'mcp-protocol-version': '1999-01-01' }),
  ).toMatchObject({ status: 400 })
  expect(
    await send(`{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"${'x'.repeat(5_000_000)}"}}`),
  ).toMatchObject({ status: 413 })
  expect(await send('{"jsonrpc":"2.0","id":1,"method":"ping"}')).toEqual({
    status: 200,
    body: { jsonrpc: '2.0', id: 1, result: {} },
  })
  expect(upstream.seen).toEqual([])
})

it('does not tell a user the token that an upstream repeats in its refusal', async () => {
  const mounted = keep(await mount())
  const upstream = keep(
    await upstreamThat((response, id) => {
      const error = {
        code: -32000,
        message: 'bad token ghp_organisation_token',
        data: { sent: 'Bearer ghp_organisation_token' },
      }
      response.writeHead(200, json).end(JSON.stringify({ jsonrpc: '2.0', id, error }))
    }),
  )
  const client = await connect(mounted.door(passage({ url: upstream.url, token: 'ghp_organisation_token' })), 'auto')
  const told: unknown = await client.callTool({ name: 't' }).catch((error: unknown) => error)
  expect(told).toMatchObject({ code: -32000, message: 'bad token ****', data: { sent: 'Bearer ****' } })
  await client.close()
})
