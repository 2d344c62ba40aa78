import {
  CLIENT_CAPABILITIES_META_KEY,
  createMcpHandler,
  LOG_LEVEL_META_KEY,
  ProtocolError,
  Server,
  type JSONRPCRequest,
  type ServerCapabilities,
  type ServerContext,
  type ServerEvent,
} from '@modelcontextprotocol/server'
import type { ClientCapabilities } from '@modelcontextprotocol/client'
import { Response } from '@whatwg-node/fetch'
import type { Place, Presence } from './place.ts'
import { isOffered } from './relay.ts'
import { whileConfirmed } from './relayChanges.ts'
import { wireError } from './relayErrors.ts'
import { isLoggingLevel } from './relayLogging.ts'
import type { Json } from './types.ts'
import { mismatchedHeader } from './upstreamHeaders.ts'
import type { Caller } from './upstream.ts'
import type { ChangeEvent } from './upstreamSession.ts'

type Modern = { place: Place; requestId: string; enterStream: () => () => void }

/**
 * Serves one request of the 2026-07-28 revision. The SDK checks the envelope and the headers, answers discovery and
 * frames the answer; every other method falls through to the place.
 */
export async function serveModern(modern: Modern, request: Request, parsedBody: unknown): Promise<Response> {
  const { place, requestId, enterStream } = modern
  const method = String((parsedBody as Json | null)?.['method'])
  const caller: Caller = { era: 'modern', capabilities: capabilitiesOf(parsedBody), who: place.userId }
  const listening = method === 'subscriptions/listen'
  let leaveStream = (): void => undefined
  let presence: Presence
  try {
    if (listening) leaveStream = enterStream()
    presence = await place.open(caller, request.signal, method === 'server/discover' ? 'describe' : 'answer')
  } catch (error) {
    leaveStream()
    return Response.json({ jsonrpc: '2.0', id: requestIdOf(parsedBody), error: wireError(error, requestId) })
  }
  let held = true
  let subscribed = false
  const release = (): void => {
    if (held) presence.release()
    held = false
    leaveStream()
  }
  const bus = {
    publish: () => undefined,
    subscribe(listener: (event: ServerEvent) => void) {
      subscribed = true
      const leave = (): void => void handler.close()
      const stopAsking = whileConfirmed(place, leave)
      const stop = presence.onChange((event) => {
        if (event.kind === 'lost') leave()
        else listener(asServerEvent(event))
      })
      const watching = resourcesOf(parsedBody).map((uri) => presence.watch(uri))
      for (const watch of watching) watch.catch(() => undefined)
      return () => {
        stopAsking()
        stop()
        for (const watch of watching) void watch.then((unwatch) => unwatch()).catch(() => undefined)
        release()
      }
    },
  }
  const mismatch = method === 'tools/call' ? await mismatched(modern, caller, request, parsedBody) : undefined
  if (mismatch) {
    release()
    return mismatch
  }
  const handler = createMcpHandler(() => instance(modern, method, presence), { legacy: 'reject', bus })
  try {
    const response = await handler.fetch(request, { parsedBody })
    // A subscription to nothing is answered and over at once.
    if (!listening || !subscribed) release()
    return response
  } catch (error) {
    release()
    throw error
  }
}

/** The SDK checks the headers that every request has; those that a tool's own schema demands are checked here. */
async function mismatched(
  { place }: Modern,
  caller: Caller,
  request: Request,
  body: unknown,
): Promise<Response | undefined> {
  const params = (body as Json)['params'] as Json | undefined
  const tool = await place.permittedTool(String(params?.['name']), caller, request.signal).catch(() => undefined)
  const name = tool && mismatchedHeader(tool.inputSchema, params?.['arguments'], request.headers)
  if (name === undefined) return undefined
  const error = { code: headerMismatch, message: `Bad Request: the header ${name} and the request body disagree` }
  return Response.json({ jsonrpc: '2.0', id: requestIdOf(body), error }, { status: 400 })
}

const headerMismatch = -32020

function instance(modern: Modern, method: string, presence: Presence): Server {
  const server = new Server(presence.serverInfo, {
    capabilities: announced(presence.capabilities),
    ...(presence.instructions === undefined ? {} : { instructions: presence.instructions }),
  })
  // Without a handler the SDK answers 404 and -32601 by itself.
  if (isOffered(method, presence.capabilities))
    server.fallbackRequestHandler = (request, context) => relayed(modern, request, context)
  return server
}

/** Only what the gateway relays is announced. */
export const announced = ({
  tools,
  resources,
  prompts,
  completions,
  logging,
}: ServerCapabilities): ServerCapabilities => ({
  ...(tools ? { tools } : {}),
  ...(resources ? { resources } : {}),
  ...(prompts ? { prompts } : {}),
  ...(completions ? { completions } : {}),
  ...(logging ? { logging } : {}),
})

async function relayed(
  { place, requestId }: Modern,
  request: JSONRPCRequest,
  { mcpReq }: ServerContext,
): Promise<Json> {
  const { inputResponses, signal, notify } = mcpReq
  const envelope: Json = { ...mcpReq.envelope }
  const requestState = mcpReq.requestState()
  const level: unknown = envelope[LOG_LEVEL_META_KEY]
  const capabilities = (envelope[CLIENT_CAPABILITIES_META_KEY] ?? {}) as ClientCapabilities
  const params = {
    ...(request.params as Json | undefined),
    ...(inputResponses === undefined ? {} : { inputResponses }),
    ...(requestState === undefined ? {} : { requestState }),
  }
  try {
    return await place.answer(
      { method: request.method, params },
      {
        requestId,
        signal,
        caller: { era: 'modern', capabilities, who: place.userId },
        logLevel: isLoggingLevel(level) ? level : undefined,
        multiRoundTrip: true,
        // A notification that this client did not ask for, or that comes after it has gone, is nobody's loss.
        notify: (notification) => void notify(notification).catch(() => undefined),
      },
    )
  } catch (error) {
    const { code, message, data } = wireError(error, requestId)
    throw new ProtocolError(code, message, data)
  }
}

const asServerEvent = (event: Exclude<ChangeEvent, { kind: 'lost' }>): ServerEvent =>
  event.kind === 'resource'
    ? { kind: 'resource_updated', uri: event.uri, ...(event.params ? { params: event.params } : {}) }
    : { kind: `${event.kind}_list_changed` }

/** Before the SDK has checked the envelope: anything unfit simply counts as nothing. */
function capabilitiesOf(body: unknown): ClientCapabilities {
  const params = (body as Json | null)?.['params'] as Json | undefined
  const declared = (params?.['_meta'] as Json | undefined)?.[CLIENT_CAPABILITIES_META_KEY]
  return typeof declared === 'object' && declared !== null ? declared : {}
}

const requestIdOf = (body: unknown): unknown => (body as Json | null)?.['id'] ?? null

function resourcesOf(body: unknown): string[] {
  const params = (body as Json | null)?.['params'] as Json | undefined
  const uris = (params?.['notifications'] as Json | undefined)?.['resourceSubscriptions']
  return Array.isArray(uris) ? uris.filter((uri): uri is string => typeof uri === 'string').slice(0, maxWatched) : []
}

/** How many resources one stream of events may watch. */
const maxWatched = 50
