import { afterAll, beforeAll, expect, it } from 'vitest'
import { startUpstream } from '../conformance/upstream.ts'
import { EventStreamParser, type ServerSentEvent } from '../../src/modules/gateway/upstreamEvents.ts'
import { mount, passage, type Mounted } from './peers/gateway.ts'
import type { Peer } from './peers/http.ts'

let upstream: Peer
let mounted: Mounted
let door: URL
let strangersDoor: URL

beforeAll(async () => {
  upstream = await startUpstream(['legacy'])
  mounted = await mount()
  door = mounted.door(passage({ url: upstream.url }))
  strangersDoor = mounted.door(passage({ url: upstream.url, user: 'bob' }))
})
afterAll(async () => {
  await mounted.close()
  await upstream.close()
})

const accept = 'application/json, text/event-stream'
const json = { 'content-type': 'application/json', accept }

async function session(version: string): Promise<string> {
  const params = { protocolVersion: version, capabilities: {}, clientInfo: { name: 'c', version: '1' } }
  const body = JSON.stringify({ jsonrpc: '2.0', id: 0, method: 'initialize', params })
  const response = await fetch(door, { method: 'POST', headers: json, body })
  await response.text()
  return response.headers.get('mcp-session-id') ?? ''
}

const call = (sessionId: string, name: string, signal?: AbortSignal): Promise<Response> =>
  fetch(door, {
    method: 'POST',
    headers: { ...json, 'mcp-session-id': sessionId },
    body: JSON.stringify({ jsonrpc: '2.0', id: 7, method: 'tools/call', params: { name, arguments: {}, _meta: { progressToken: 'p' } } }),
    ...(signal ? { signal } : {}),
  }) // prettier-ignore

const again = (at: URL, sessionId: string, lastEventId: string, signal: AbortSignal | null = null): Promise<Response> =>
  fetch(at, {
    signal,
    headers: { accept: 'text/event-stream', 'mcp-session-id': sessionId, 'last-event-id': lastEventId },
  })

async function* events(response: Response): AsyncGenerator<ServerSentEvent> {
  const parser = new EventStreamParser()
  for await (const chunk of response.body ?? []) yield* parser.push(chunk as Uint8Array)
}
const allOf = async (response: Response): Promise<ServerSentEvent[]> => {
  const found: ServerSentEvent[] = []
  for await (const event of events(response)) found.push(event)
  return found
}

it('asks its client to come back when the upstream asks it to, and then has the answer', async () => {
  const id = await session('2025-11-25')
  const [first, ...rest] = await allOf(await call(id, 'test_reconnection'))
  expect(first).toMatchObject({ id: expect.any(String), retryMs: expect.any(Number), data: '' })
  expect(rest).toEqual([])
  const answers = await allOf(await again(door, id, first?.id ?? ''))
  expect(answers.map(({ data }) => JSON.parse(data) as unknown)).toMatchObject([
    { id: 7, result: { content: [{ type: 'text' }] } },
  ])
})

it('goes on for a client whose connection broke, and repeats exactly what it missed', async () => {
  const id = await session('2025-11-25')
  const broken = new AbortController()
  const seen: ServerSentEvent[] = []
  for await (const event of events(await call(id, 'test_tool_with_progress', broken.signal))) {
    seen.push(event)
    if (seen.length === 2) break
  }
  broken.abort()
  const rest = await allOf(await again(door, id, seen[1]?.id ?? ''))
  const said = [...seen.slice(1), ...rest].map(({ data }) => JSON.parse(data) as { id?: number; params?: { progress: number } })
  expect(said.map(({ params, id: answered }) => params?.progress ?? answered)).toEqual([0, 50, 100, 7])
  expect(mounted.records.at(-1)).toMatchObject({ tool: 'test_tool_with_progress', status: 'ok' })
}) // prettier-ignore

it('gives nobody else the rest of a stream, and does not prime those who do not know how', async () => {
  const id = await session('2025-11-25')
  const [first] = await allOf(await call(id, 'test_reconnection'))
  // To a stranger it is an id like any other: a stream of changes, on which nothing is said.
  await expect(again(strangersDoor, id, first?.id ?? '', AbortSignal.timeout(500)).then(allOf)).rejects.toThrow()
  const own = await allOf(await again(door, id, first?.id ?? ''))
  expect(own).toHaveLength(1)

  const earlier = await call(await session('2025-06-18'), 'test_tool_with_progress')
  expect((await allOf(earlier)).every(({ id: eventId, data }) => eventId === undefined && data !== '')).toBe(true)
})
