import { ProtocolError, type JSONRPCRequest } from '@modelcontextprotocol/client'
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { Response } from '@whatwg-node/fetch'
import { callerOf, changes, failed, watch, type Client, type Legacy } from './relayChanges.ts'
import { answerMs, assertMayAsk } from './relayAsking.ts'
import { mintSessionId, readSessionId, type ClientMemory, type ClientSession } from './relayClients.ts'
import { invalidParams, wireError } from './relayErrors.ts'
import { isLoggingLevel } from './relayLogging.ts'
import { announced } from './relayModern.ts'
import { resumably, resumed } from './relayResumption.ts'
import { lazily } from './relayStream.ts'
import type { Json } from './types.ts'
import { abandonable, following } from './upstreamDeadline.ts'
import type { Ask } from './upstreamExchange.ts'

/** Revisions that are begun with `initialize`, newest first. */
const versions = ['2025-11-25', '2025-06-18', '2025-03-26', '2024-11-05', '2024-10-07'] as const
/** Messages of one JSON-RPC batch. */
export const maxBatch = 20
/** Clients of earlier revisions do not know an event without content. */
const resumableSince = '2025-11-25'

const id = z.union([z.string(), z.number()])
const incoming = z.union([
  z.object({ jsonrpc: z.literal('2.0'), id, method: z.string(), params: z.record(z.string(), z.unknown()).optional() }),
  z.strictObject({
    jsonrpc: z.literal('2.0'),
    method: z.string(),
    params: z.record(z.string(), z.unknown()).optional(),
  }),
  z.object({ jsonrpc: z.literal('2.0'), id, result: z.record(z.string(), z.unknown()) }),
  z.object({
    jsonrpc: z.literal('2.0'),
    id,
    error: z.object({ code: z.int(), message: z.string(), data: z.unknown().optional() }),
  }),
])
type Incoming = z.infer<typeof incoming>

const accepted = (): Response => new Response(null, { status: 202 })

/** Serves the revisions up to 2025-11-25: the handshake, requests, answers to what the client was asked, change events. */
export async function serveLegacy(legacy: Legacy, request: Request, body: unknown): Promise<Response> {
  const version = request.headers.get('mcp-protocol-version')
  if (version !== null && !(versions as readonly string[]).includes(version))
    return failed(400, -32000, `Bad Request: Unsupported protocol version (supported versions: ${versions.join(', ')})`)
  const sessionId = request.headers.get('mcp-session-id')
  const session = sessionId === null ? undefined : readSessionId(sessionId)
  if (sessionId !== null && (!session || legacy.memories.hasEnded(legacy.place, session)))
    return failed(404, -32001, 'Session not found')
  const client: Client = { session, memory: session && legacy.memories.of(legacy.place, session) }
  if (request.method === 'GET')
    return resumed(client.memory?.streams, request.headers.get('last-event-id')) ?? changes(legacy, client, request)
  if (request.method === 'DELETE') {
    if (session) legacy.memories.forget(legacy.place, session)
    return new Response(null, { status: session ? 200 : 405 })
  }
  if (request.method !== 'POST') return failed(405, -32000, 'Method not allowed.', { allow: 'GET, POST, DELETE' })
  return Array.isArray(body) ? batch(legacy, client, request, body) : single(legacy, client, request, body)
}

async function single(legacy: Legacy, client: Client, request: Request, body: unknown): Promise<Response> {
  const { success, data: message } = incoming.safeParse(body)
  if (!success) return failed(400, -32600, 'Invalid Request')
  if (!isRequest(message)) {
    take(client, message)
    return accepted()
  }
  const accept = request.headers.get('accept') ?? '*/*'
  const mayStream = /text\/event-stream|\*\/\*/.test(accept)
  if (!mayStream && !/application\/(json|\*)/.test(accept))
    return failed(406, -32000, 'Not Acceptable: Client must accept both application/json and text/event-stream')
  if (message.method === 'initialize') return initialize(legacy, message)
  const call = new AbortController()
  if (mayStream && client.memory && client.session?.version === resumableSince)
    return resumably(
      client.memory.streams,
      (send, interrupt) => answer(legacy, client, message, call, send, interrupt),
      {
        signal: request.signal,
        abandon: () => call.abort(),
        atOnce: accept.trimStart().startsWith('text/event-stream'),
      },
    )
  const unfollow = following(call, request.signal)
  return lazily(
    (send) => answer(legacy, client, message, call, send).finally(unfollow),
    () => call.abort(),
    mayStream,
  )
}

/** JSON-RPC batches, which 2025-03-26 had: the answers come together, and nothing is streamed before them. */
async function batch(legacy: Legacy, client: Client, request: Request, body: readonly unknown[]): Promise<Response> {
  if (body.length === 0 || body.length > maxBatch)
    return failed(400, -32600, `A batch holds 1 to ${maxBatch} messages.`)
  const { success, data: messages } = z.array(incoming).safeParse(body)
  if (!success || messages.some((message) => isRequest(message) && message.method === 'initialize'))
    return failed(400, -32600, 'Invalid Request')
  for (const message of messages) if (!isRequest(message)) take(client, message)
  const requests = messages.filter(isRequest)
  if (requests.length === 0) return accepted()
  const answers = requests.map((each) => {
    const call = new AbortController()
    const unfollow = following(call, request.signal)
    return answer(legacy, client, each, call, undefined).finally(unfollow)
  })
  return Response.json(await Promise.all(answers))
}

const isRequest = (message: Incoming): message is Extract<Incoming, { id: string | number; method: string }> =>
  'method' in message && 'id' in message

async function initialize({ place, requestId }: Legacy, { id: messageId, params }: JSONRPCRequest): Promise<Response> {
  const asked = versions.find((version) => version === params?.['protocolVersion']) ?? versions[0]
  const sessionId = mintSessionId(asked, params?.['capabilities'])
  try {
    const presence = await place.open(callerOf(place, readSessionId(sessionId)), undefined, 'describe')
    presence.release()
    const result = {
      protocolVersion: asked,
      capabilities: announced(presence.capabilities),
      serverInfo: presence.serverInfo,
      ...(presence.instructions === undefined ? {} : { instructions: presence.instructions }),
    }
    return Response.json({ jsonrpc: '2.0', id: messageId, result }, { headers: { 'mcp-session-id': sessionId } })
  } catch (error) {
    return Response.json({ jsonrpc: '2.0', id: messageId, error: wireError(error, requestId) })
  }
}

/** A notification, or the answer to something that the client was asked. */
function take({ memory }: Client, message: Exclude<Incoming, { id: string | number; method: string }>): void {
  if ('method' in message) {
    const running = message.params?.['requestId']
    if (message.method === 'notifications/cancelled' && (typeof running === 'string' || typeof running === 'number'))
      memory?.running.get(running)?.abort()
    return
  }
  const waiting = memory?.waiting.get(String(message.id))
  if ('result' in message) waiting?.answer(message.result)
  else waiting?.refuse(message.error)
}

async function answer(
  legacy: Legacy,
  client: Client,
  { id: messageId, method, params = {} }: JSONRPCRequest,
  call: AbortController,
  send: ((message: object) => void) | undefined,
  interrupt?: (retryMs: number) => void,
): Promise<object> {
  client.memory?.running.set(messageId, call)
  try {
    const result = await perform(legacy, client, method, params, call.signal, send, interrupt)
    return { jsonrpc: '2.0', id: messageId, result: withoutModernTerms(result) }
  } catch (error) {
    return { jsonrpc: '2.0', id: messageId, error: wireError(error, legacy.requestId) }
  } finally {
    client.memory?.running.delete(messageId)
  }
}

async function perform(
  legacy: Legacy,
  client: Client,
  method: string,
  params: Json,
  signal: AbortSignal,
  send: ((message: object) => void) | undefined,
  interrupt: ((retryMs: number) => void) | undefined,
): Promise<Json> {
  const { place, requestId } = legacy
  if (method === 'logging/setLevel') return setLevel(legacy, client, params)
  if (method === 'resources/subscribe' || method === 'resources/unsubscribe')
    return watch(legacy, client, method, params)
  const capabilities = (send && client.session?.capabilities) ?? {}
  return place.answer(
    { method, params },
    {
      requestId,
      signal,
      caller: { era: 'legacy', capabilities, who: place.userId },
      logLevel: client.memory?.logLevel,
      multiRoundTrip: false,
      notify: (notification) => send?.({ jsonrpc: '2.0', ...notification }),
      interrupt,
      ask: send && client.memory ? asking(client.memory, capabilities, signal, send) : undefined,
    },
  )
}

/** Asks on the stream of the request that it belongs to; the client answers by a POST of its own. */
const asking =
  (
    memory: ClientMemory,
    capabilities: ClientSession['capabilities'],
    signal: AbortSignal,
    send: (message: object) => void,
  ): Ask =>
  async ({ method, params }) => {
    assertMayAsk(capabilities, method)
    const questionId = randomUUID()
    const reply = new Promise<Json>((resolve, reject) => {
      memory.waiting.set(questionId, {
        answer: resolve,
        refuse: ({ code, message, data }) => reject(new ProtocolError(code, message, data)),
      })
    })
    send({ jsonrpc: '2.0', id: questionId, method, ...(params ? { params } : {}) })
    try {
      return await abandonable(reply, AbortSignal.any([signal, AbortSignal.timeout(answerMs)]))
    } finally {
      memory.waiting.delete(questionId)
    }
  }

/** The upstream is set no quieter than anybody who shares its connection wants; what is too quiet is left out here. */
async function setLevel({ place }: Legacy, { session, memory }: Client, { level }: Json): Promise<Json> {
  if (!isLoggingLevel(level)) throw new ProtocolError(invalidParams, 'Invalid params: no such logging level')
  if (memory) memory.logLevel = level
  const presence = await place.open(callerOf(place, session))
  await presence.hearFrom(level).finally(() => presence.release())
  return {}
}

/** Members that only the 2026-07-28 revision has. */
function withoutModernTerms({ resultType: _, ttlMs: __, cacheScope: ___, ...result }: Json): Json {
  return result
}
