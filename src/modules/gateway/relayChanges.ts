import { ProtocolError } from '@modelcontextprotocol/client'
import type { Relay } from './relay.ts'
import type { ClientMemories, ClientMemory, ClientSession } from './relayClients.ts'
import { invalidParams, wireError } from './relayErrors.ts'
import { EventStream } from './relayStream.ts'
import type { Json, Passage } from './types.ts'
import type { Caller, UpstreamPool } from './upstream.ts'
import type { ChangeEvent, UpstreamSession } from './upstreamSession.ts'

export type Legacy = { relay: Relay; pool: UpstreamPool; memories: ClientMemories; passage: Passage; requestId: string }
export type Client = { session: ClientSession | undefined; memory: ClientMemory | undefined }

const maxWatched = 200

export const failed = (status: number, code: number, message: string, headers: Record<string, string> = {}): Response =>
  Response.json({ jsonrpc: '2.0', id: null, error: { code, message } }, { status, headers })

export const callerOf = (session: ClientSession | undefined): Caller => ({
  era: 'legacy',
  capabilities: session?.capabilities ?? {},
})

/** Begins or ends watching one resource. */
export async function watch(
  { pool, passage }: Legacy,
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
    const unwatch = await pool.use(passage.target, callerOf(session), ({ session: upstream }) => upstream.watch(uri))
    if (memory) memory.watched.set(uri, unwatch)
    else unwatch()
  }
  return {}
}

/** The stream on which a legacy client hears of changes, for as long as it stays. */
export async function changes(
  { pool, passage, requestId }: Legacy,
  { session, memory }: Client,
  request: Request,
): Promise<Response> {
  if (!/text\/event-stream|\*\/\*/.test(request.headers.get('accept') ?? ''))
    return failed(406, -32000, 'Not Acceptable: Client must accept text/event-stream')
  if (!session) return failed(405, -32000, 'Method not allowed.', { allow: 'POST' })
  try {
    const hold = await pool.hold(passage.target, callerOf(session), request.signal)
    const { session: upstream } = hold.connection
    const stop = upstream.onChange((event) => {
      if (event.kind === 'lost') leave()
      else if (event.kind !== 'resource' || memory?.watched.has(event.uri))
        stream.send({ jsonrpc: '2.0', ...notificationOf(event) })
    })
    if (memory) rewatch(memory, upstream)
    const leave = (): void => {
      stop()
      hold.release()
      stream.close()
    }
    const stream = new EventStream(leave)
    request.signal.addEventListener('abort', leave, { once: true })
    if (request.signal.aborted) leave()
    return stream.response
  } catch (error) {
    return Response.json({ jsonrpc: '2.0', id: null, error: wireError(error, requestId) }, { status: 502 })
  }
}

/** After the connection to the upstream has been lost, the client's watches go on on the new one. */
function rewatch({ watched }: ClientMemory, upstream: UpstreamSession): void {
  for (const [uri, stop] of watched) {
    const watching = upstream.watch(uri)
    watching.catch(() => undefined)
    watched.set(uri, () => void watching.then((unwatch) => unwatch()).catch(() => undefined))
    stop()
  }
}

const notificationOf = (event: Exclude<ChangeEvent, { kind: 'lost' }>): object =>
  event.kind === 'resource'
    ? { method: 'notifications/resources/updated', params: event.params ?? { uri: event.uri } }
    : { method: `notifications/${event.kind}/list_changed` }
