import type { ServerResponse } from 'node:http'
import { afterEach, expect, it } from 'vitest'
import { createOutbound } from '../../src/kernel/outbound.ts'
import { mount, passage, type Mounted } from './peers/gateway.ts'
import { listen, type Peer } from './peers/http.ts'

/** The gateway behind the platform's one door for outgoing HTTP, as it runs in production. */
const toClose: { close: () => Promise<void> }[] = []
const keep = <T extends { close: () => Promise<void> }>(closable: T): T => (toClose.push(closable), closable)
afterEach(async () => {
  for (const each of toClose.splice(0).reverse()) await each.close()
})

const json = { 'content-type': 'application/json' }
const gibibyte = 2 ** 30

type Answers = {
  call: (response: ServerResponse, id: number) => void
  /** Whether each request needs a connection of its own. */
  closing?: boolean
}

async function upstream({ call, closing = false }: Answers): Promise<Peer & { calls: () => number }> {
  let calls = 0
  const peer = await listen((request, response) => {
    if (closing) response.setHeader('connection', 'close')
    if (request.method !== 'POST') return void response.writeHead(405).end()
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { id, method } = JSON.parse(Buffer.concat(chunks).toString()) as { id?: number; method: string }
      const results: Record<string, object> = {
        initialize: { protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo: { name: 'u', version: '1' } },
        'tools/list': { tools: [{ name: 't', inputSchema: { type: 'object' } }] },
      }
      if (id === undefined) return void response.writeHead(202).end()
      if (method === 'tools/call') return (calls++, call(response, id))
      const answer = results[method] ? { result: results[method] } : { error: { code: -32601, message: 'Method not found' } }
      response.writeHead(200, json).end(JSON.stringify({ jsonrpc: '2.0', id, ...answer }))
    })
  })
  return Object.assign(keep(peer), { calls: () => calls })
} // prettier-ignore

const well: Answers['call'] = (response, id) =>
  void response.writeHead(200, json).end(JSON.stringify({ jsonrpc: '2.0', id, result: { content: [] } }))

async function behindTheDoor(resolve?: (name: string) => Promise<readonly string[]>): Promise<Mounted> {
  const outbound = keep(
    createOutbound({
      allowedCidrs: ['127.0.0.1/32'],
      connectTimeoutMs: 2000,
      headersTimeoutMs: 5000,
      bodyTimeoutMs: 5000,
      maxResponseBytes: 2 ** 20,
      maxRedirects: 3,
      connectionsPerOrigin: 64,
      ...(resolve ? { resolve } : {}),
    }),
  )
  return keep(await mount({ requestMs: 2000, connectMs: 4000, maxResultBytes: 2 ** 20 }, outbound.fetch))
}

const call = (mounted: Mounted, url: string): Promise<unknown> =>
  mounted.gateway.callTool(passage({ url }), { name: 't', requestId: 'r' }).catch((error: unknown) => error)

it('follows no redirect to a private address, wherever on the way it comes', async () => {
  const mounted = await behindTheDoor()
  let reached = 0
  const inner = keep(await listen((_, response) => (reached++, response.end())))
  const { port } = new URL(inner.url)
  for (const location of [`http://localhost:${port}/`, `http://127.0.0.2:${port}/`, `http://[::1]:${port}/`, 'http://10.0.0.5/', 'http://169.254.169.254/latest', `http://2130706434:${port}/`]) {
    const { url } = await upstream({ call: (response) => void response.writeHead(307, { location }).end() })
    const failure = await call(mounted, url)
    expect(failure).toMatchObject({ code: 'UPSTREAM_ERROR' })
    expect(String(failure)).not.toMatch(/169|10\.0|127|localhost/)
  }
  expect(reached).toBe(0)
}) // prettier-ignore

it('does not go where a name leads once its answer has changed to a private address', async () => {
  let answer = '127.0.0.1'
  const mounted = await behindTheDoor(() => Promise.resolve([answer]))
  const { url, calls } = await upstream({ call: well, closing: true })
  const named = url.replace('127.0.0.1', 'upstream.example')
  expect(await call(mounted, named)).toMatchObject({ content: [] })
  answer = '127.0.0.2'
  for (let n = 0; n < 3; n++) expect(await call(mounted, named)).toMatchObject({ code: 'UPSTREAM_ERROR' })
  expect(calls()).toBe(1)
  answer = '127.0.0.1'
  expect(await call(mounted, named)).toMatchObject({ content: [] })
}) // prettier-ignore

it.each(['with its length said', 'as it comes'])('takes a little of an answer of 1 GiB, %s, and keeps none', async (how) => {
  const mounted = await behindTheDoor()
  const block = Buffer.alloc(256 * 1024, 'x')
  let sent = 0
  const flood = (response: ServerResponse): void => {
    while (!response.destroyed && sent < gibibyte && (sent += block.length) && response.write(block));
    response.once('drain', () => flood(response))
  }
  const length = how === 'as it comes' ? {} : { 'content-length': String(gibibyte) }
  const { url } = await upstream({ call: (response) => flood(response.writeHead(200, { ...json, ...length })) })
  globalThis.gc?.()
  const before = process.memoryUsage().rss
  for (let n = 0; n < 10; n++) {
    sent = 0
    expect(await call(mounted, url)).toMatchObject({ code: 'UPSTREAM_ERROR', message: expect.stringMatching(/large/) })
    // What a connection's buffers hold, and no more.
    expect(sent).toBeLessThan(32 * 2 ** 20)
  }
  expect(process.memoryUsage().rss - before).toBeLessThan(150 * 2 ** 20)
  expect(mounted.records.map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => 'upstream_error'))
}) // prettier-ignore

it('keeps a row of every call and answers those of a sound upstream, while others fail in every way at once', async () => {
  const mounted = await behindTheDoor()
  const sound = await upstream({ call: well })
  const stream = { 'content-type': 'text/event-stream' }
  const ways: Answers['call'][] = [
    () => undefined,
    (response) => void response.socket?.resetAndDestroy(),
    (response) => void response.writeHead(200, stream).write(': and no more\n\n'),
    (response) => void response.writeHead(200, json).end('garbage'),
    (response) => void response.writeHead(404, json).end('{}'),
    (response) => void (response.writeHead(200, stream).write('data: {"half'), setImmediate(() => response.socket?.resetAndDestroy())),
  ]
  const bad = await Promise.all(ways.map((each) => upstream({ call: each })))
  const failing = bad.flatMap(({ url }) => Array.from({ length: 10 }, () => call(mounted, url)))
  const working = await Promise.all(Array.from({ length: 50 }, () => call(mounted, sound.url)))
  expect(working.every((each) => 'content' in (each as object))).toBe(true)
  const codes = (await Promise.all(failing)).map((each) => (each as { code: string }).code)
  expect(codes.every((code) => code === 'UPSTREAM_ERROR' || code === 'UPSTREAM_TIMEOUT')).toBe(true)
  expect(mounted.records).toHaveLength(failing.length + working.length)
}) // prettier-ignore
