import { ProtocolError } from '@modelcontextprotocol/client'
import { z } from 'zod'
import type { Asked, Reply, ReplyBody } from '../../kernel/outboundExchange.ts'
import type { Json } from './types.ts'
import { wait } from './upstreamDeadline.ts'
import { refusedWith, SessionExpired, upstreamError } from './upstreamErrors.ts'
import { EventStreamParser } from './upstreamEvents.ts'
import { mediaType, readText, tooLarge } from './upstreamHttp.ts'

/** Where and how one upstream is spoken to. */
export type Link = {
  endpoint: URL
  send: (url: URL, asked: Asked) => Promise<Reply>
  maxBytes: number
  /** Headers of the connection: protocol version and, on a legacy session, its id. */
  headers: Readonly<Record<string, string>>
}

export type Message = { id: number; method: string; params?: Json | undefined }
export type Notification = { method: string; params?: Json | undefined }
export type ServerRequest = { method: string; params?: Json | undefined }
/** Answers a request that the upstream makes while it works on ours; a `ProtocolError` becomes a JSON-RPC error. */
export type Ask = (request: ServerRequest) => Promise<Json>

export type ExchangeHandlers = {
  signal: AbortSignal
  headers?: Readonly<Record<string, string>>
  onNotification: (notification: Notification) => void
  onRequest: Ask
  /** The upstream has ended its stream and wants to be asked for the rest later (SEP-1699). */
  onInterruption?: ((retryMs: number) => void) | undefined
}

const payload = z.record(z.string(), z.unknown())
const wireMessage = z.object({
  jsonrpc: z.literal('2.0'),
  id: z.union([z.string(), z.number(), z.null()]).optional(),
  method: z.string().optional(),
  params: payload.optional(),
  result: payload.optional(),
  error: z.object({ code: z.int(), message: z.string(), data: z.unknown().optional() }).optional(),
})
type WireMessage = z.infer<typeof wireMessage>

const maxResumptions = 20
const drainMs = 2000

/** Sends one JSON-RPC message by POST. Answers that are not a success, and failures of the network, are thrown. */
export async function post(
  link: Link,
  message: object,
  signal: AbortSignal,
  extra: Readonly<Record<string, string>> = {},
): Promise<Reply> {
  const response = await reach(link, signal, {
    method: 'POST',
    headers: {
      ...link.headers,
      ...extra,
      accept: 'application/json, text/event-stream',
      'content-type': 'application/json',
    },
    body: JSON.stringify({ jsonrpc: '2.0', ...message }),
  })
  if (!response.ok) await refuse(link, response)
  return response
}

async function reach(link: Link, signal: AbortSignal, asked: Omit<Asked, 'signal'>): Promise<Reply> {
  try {
    return await link.send(link.endpoint, { ...asked, signal })
  } catch (error) {
    signal.throwIfAborted()
    throw error
  }
}

async function refuse(link: Link, response: Reply): Promise<never> {
  const onSession = link.headers['mcp-session-id'] !== undefined
  if (response.status === 404 && onSession) {
    await response.body?.cancel()
    throw new SessionExpired('The service no longer knows the session.')
  }
  const text = mediaType(response) === 'application/json' ? await readText(response, link.maxBytes) : ''
  if (text === '') await response.body?.cancel().catch(() => undefined)
  const error = text === '' ? undefined : parseMessage(text)?.error
  // Some servers in use answer an unknown session with 400 instead of the 404 that the specification asks for.
  if (error && onSession && response.status === 400 && /session/i.test(error.message))
    throw new SessionExpired('The service no longer knows the session.')
  if (error && response.status === 400) throw ProtocolError.fromError(error.code, error.message, error.data)
  throw refusedWith(response.status, response.headers.get('retry-after'))
}

function parseMessage(text: string): WireMessage | undefined {
  try {
    const { success, data } = wireMessage.safeParse(JSON.parse(text))
    return success ? data : undefined
  } catch {
    return undefined
  }
}

/**
 * One request and all that belongs to it: the answer, and what the upstream says or asks on the same stream before it.
 * Because each request has its own stream, what is said on it can never reach another caller.
 */
export async function exchange(link: Link, message: Message, handlers: ExchangeHandlers): Promise<Json> {
  const response = await post(link, message, handlers.signal, handlers.headers)
  const type = mediaType(response)
  if (type === 'application/json') {
    const answer = parseMessage(await readText(response, link.maxBytes))
    if (!answer || answer.id !== message.id) throw garbage()
    return settle(answer)
  }
  if (type === 'text/event-stream') return follow(link, message, handlers, response)
  await response.body?.cancel()
  throw garbage()
}

const garbage = (): Error => upstreamError('The service does not answer in the protocol.')

function settle({ result, error }: WireMessage): Json {
  if (error) throw ProtocolError.fromError(error.code, error.message, error.data)
  if (!result) throw garbage()
  return result
}

type Progress = { bytes: number; lastEventId: string | undefined; retryMs: number }

/** Follows the stream to the answer, and takes it up again where it broke off if the upstream made that possible. */
async function follow(link: Link, message: Message, handlers: ExchangeHandlers, first: Reply): Promise<Json> {
  const state: Progress = { bytes: 0, lastEventId: undefined, retryMs: 1000 }
  let response = first
  for (let resumption = 0; ; resumption++) {
    const before = state.lastEventId
    const answer = await read(link, message, handlers, response, state)
    if (answer) return settle(answer)
    const resumable = state.lastEventId !== undefined && (resumption === 0 || before !== state.lastEventId)
    if (!resumable || resumption >= maxResumptions) throw upstreamError('The service broke off its answer.')
    handlers.onInterruption?.(state.retryMs)
    await wait(state.retryMs, handlers.signal).catch(() => handlers.signal.throwIfAborted())
    response = await reach(link, handlers.signal, {
      method: 'GET',
      headers: { ...link.headers, accept: 'text/event-stream', 'last-event-id': state.lastEventId ?? '' },
    })
    if (!response.ok) await refuse(link, response)
  }
}

async function read(
  link: Link,
  message: Message,
  handlers: ExchangeHandlers,
  response: Reply,
  state: Progress,
): Promise<WireMessage | undefined> {
  if (!response.body) return undefined
  const { body } = response
  const chunks = body[Symbol.asyncIterator]()
  const parser = new EventStreamParser()
  for (;;) {
    const value = await next(chunks, handlers.signal, state)
    if (!value) return undefined
    state.bytes += value.byteLength
    if (state.bytes > link.maxBytes) {
      void body.cancel().catch(() => undefined)
      throw tooLarge()
    }
    for (const event of parser.push(value)) {
      if (event.retryMs !== undefined) state.retryMs = Math.min(event.retryMs, 30_000)
      if (event.id) state.lastEventId = event.id
      if (event.data === '') continue
      const answer = dispatch(link, message, handlers, parseMessage(event.data))
      if (!answer) continue
      drain(body, chunks)
      return answer
    }
  }
}

async function next(
  chunks: AsyncIterator<Uint8Array>,
  signal: AbortSignal,
  state: Progress,
): Promise<Uint8Array | undefined> {
  try {
    const chunk = await chunks.next()
    return chunk.done === true ? undefined : chunk.value
  } catch (error) {
    signal.throwIfAborted()
    if (state.lastEventId !== undefined) return undefined
    throw upstreamError('The service broke off its answer.', error)
  }
}

/** A stream that is read to its end gives its connection back to the pool; one that is cancelled closes it. */
function drain(body: ReplyBody, chunks: AsyncIterator<Uint8Array>): void {
  const timer = setTimeout(() => void body.cancel().catch(() => undefined), drainMs).unref()
  const rest = async (): Promise<void> => {
    while (!(await chunks.next()).done);
  }
  void rest()
    .catch(() => undefined)
    .finally(() => clearTimeout(timer))
}

function dispatch(
  link: Link,
  message: Message,
  handlers: ExchangeHandlers,
  incoming: WireMessage | undefined,
): WireMessage | undefined {
  if (!incoming) throw garbage()
  const { id, method, params } = incoming
  if (method === undefined) return id === message.id ? incoming : undefined
  if (id === undefined || id === null) handlers.onNotification({ method, params })
  else void reply(link, id, handlers, { method, params })
  return undefined
}

/** Answers a request of the upstream; if the answer cannot be delivered, the exchange ends by its own deadline. */
export async function reply(
  link: Link,
  id: string | number,
  { onRequest, signal }: Pick<ExchangeHandlers, 'onRequest' | 'signal'>,
  request: ServerRequest,
): Promise<void> {
  let answer: object
  try {
    answer = { id, result: request.method === 'ping' ? {} : await onRequest(request) }
  } catch (error) {
    const { code, message, data } =
      error instanceof ProtocolError ? error : new ProtocolError(-32603, 'The client could not answer.')
    answer = { id, error: { code, message, ...(data === undefined ? {} : { data }) } }
  }
  try {
    const response = await post(link, answer, signal)
    await response.body?.cancel()
  } catch {
    return
  }
}
