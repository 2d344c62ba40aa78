import { ProtocolError } from '@modelcontextprotocol/client'
import { Response } from '@whatwg-node/fetch'
import { AppError } from '../../kernel/errors.ts'
import type { Place, Presence } from './place.ts'
import type { ClientMemories, ClientMemory, ClientSession } from './relayClients.ts'
import { invalidParams, wireError } from './relayErrors.ts'
import { EventStream } from './relayStream.ts'
import type { Json } from './types.ts'
import type { Caller } from './upstream.ts'
import type { ChangeEvent } from './upstreamSession.ts'

export type Legacy = {
  place: Place
  memories: ClientMemories
  requestId: string
  /** Takes one of the caller's places for streams, or throws; answers with what gives it back. */
  enterStream: () => () => void
}
export type Client = { session: ClientSession | undefined; memory: ClientMemory | undefined }

const maxWatched = 200
/** How often it is asked whether somebody who only listens may still be there. */
const confirmMs = 15_000

export const failed = (status: number, code: number, message: string, headers: Record<string, string> = {}): Response =>
  Response.json({ jsonrpc: '2.0', id: null, error: { code, message } }, { status, headers })

export const callerOf = ({ userId }: Place, session: ClientSession | undefined): Caller => ({
  era: 'legacy',
  capabilities: session?.capabilities ?? {},
  who: userId,
})

/** Calls `leave` once the caller may no longer be at this place; answers with what ends the asking. */
export function whileConfirmed(place: Place, leave: () => void): () => void {
  const timer = setInterval(() => void place.confirm().catch(leave), confirmMs).unref()
  return () => clearInterval(timer)
}

/** Begins or ends watching one resource. */
export async function watch(
  { place }: Legacy,
  { session, memory }: Client,
  method: string,
  { uri }: Json,
): Promise<Json> {
  if (typeof uri !== 'string')
    throw new ProtocolError(invalidParams, 'Invalid params: the URI of a resource is missing')
  const stop = memory?.watched.get(uri)
  if (method === 'resources/unsubscribe') {
    memory?.watched.delete(uri)
    stop?.()
  } else if (!stop) {
    if (memory && memory.watched.size >= maxWatched)
      throw new ProtocolError(invalidParams, `A client may watch ${maxWatched} resources at a time.`)
    const presence = await place.open(callerOf(place, session))
    const unwatch = await presence.watch(uri).finally(() => presence.release())
    if (memory) memory.watched.set(uri, unwatch)
    else unwatch()
  }
  return {}
}

/** The stream on which a legacy client hears of changes, for as long as it stays. */
export async function changes(
  { place, requestId, enterStream }: Legacy,
  { session, memory }: Client,
  request: Request,
): Promise<Response> {
  if (!/text\/event-stream|\*\/\*/.test(request.headers.get('accept') ?? ''))
    return failed(406, -32000, 'Not Acceptable: Client must accept text/event-stream')
  if (!session) return failed(405, -32000, 'Method not allowed.', { allow: 'POST' })
  let leaveStream = (): void => undefined
  try {
    leaveStream = enterStream()
    const presence = await place.open(callerOf(place, session), request.signal)
    const stop = presence.onChange((event) => {
      if (event.kind === 'lost') leave()
      else if (event.kind !== 'resource' || memory?.watched.has(event.uri))
        stream.send({ jsonrpc: '2.0', ...notificationOf(event) })
    })
    if (memory) rewatch(memory, presence)
    const leave = (): void => {
      stopAsking()
      stop()
      leaveStream()
      presence.release()
      stream.close()
    }
    const stopAsking = whileConfirmed(place, leave)
    const stream = new EventStream(leave)
    request.signal.addEventListener('abort', leave, { once: true })
    if (request.signal.aborted) leave()
    return stream.response
  } catch (error) {
    leaveStream()
    const status = error instanceof AppError ? error.status : 502
    return Response.json({ jsonrpc: '2.0', id: null, error: wireError(error, requestId) }, { status })
  }
}

/** After the connection to the upstream has been lost, the client's watches go on on the new one. */
function rewatch({ watched }: ClientMemory, presence: Presence): void {
  for (const [uri, stop] of watched) {
    const watching = presence.watch(uri)
    watching.catch(() => undefined)
    watched.set(uri, () => void watching.then((unwatch) => unwatch()).catch(() => undefined))
    stop()
  }
}

const notificationOf = (event: Exclude<ChangeEvent, { kind: 'lost' }>): object =>
  event.kind === 'resource'
    ? { method: 'notifications/resources/updated', params: event.params ?? { uri: event.uri } }
    : { method: `notifications/${event.kind}/list_changed` }
