import { classifyInboundRequest, type InboundLadderRejection, isJsonContentType } from '@modelcontextprotocol/server'
import type { CallToolResult } from '@modelcontextprotocol/client'
import { Response } from '@whatwg-node/fetch'
import { ArgumentChecks } from './argumentChecks.ts'
import { gatheringPlace } from './gatheringPlace.ts'
import { servicePlace, type Place } from './place.ts'
import { Relay, type Downstream } from './relay.ts'
import { ClientMemories } from './relayClients.ts'
import { domainError } from './relayErrors.ts'
import { maxBatch, serveLegacy } from './relayLegacy.ts'
import { serveModern } from './relayModern.ts'
import { Parking } from './relayParking.ts'
import type { Gateway, GatewayOptions, Gathering, Json, Passage, ToolCall } from './types.ts'
import { UpstreamPool, type Caller } from './upstream.ts'

const maxRequestChars = 4 * 1024 * 1024

const failed = (status: number, code: number, message: string): Response =>
  Response.json({ jsonrpc: '2.0', id: null, error: { code, message } }, { status })

/** What the specification's own ladder of checks refuses needs no upstream. */
function rejected({ httpStatus, code, message, data }: InboundLadderRejection, body: unknown): Response {
  const id = typeof body === 'object' && body !== null && 'id' in body ? body.id : null
  const known = typeof id === 'string' || typeof id === 'number' ? id : null
  const error = { code, message, ...(data === undefined ? {} : { data }) }
  return Response.json({ jsonrpc: '2.0', id: known, error }, { status: httpStatus })
}

/** The data plane: whatever the door and whatever the client's revision, one path leads to the upstream. */
export function createGateway(options: GatewayOptions): Gateway {
  const clock = options.clock ?? (() => new Date())
  const pool = new UpstreamPool({ ...options, clock })
  const checks = new ArgumentChecks(
    () => clock().getTime(),
    (message) => options.onWarning?.({ message, target: '', error: '' }),
  )
  const relay = new Relay({
    pool,
    checks,
    record: options.record,
    admit: options.admission?.call,
    pin: options.pin,
    trace: options.trace,
    clock,
  })
  const parking = new Parking()
  const memories = new ClientMemories()
  const means = { relay, pool, parking }
  const placeOf = (at: Passage | Gathering): Place =>
    'target' in at ? servicePlace(means, at) : gatheringPlace(means, at, options.limits.fanOutMs)

  return {
    listTools: (passage, { signal } = {}) =>
      relay.tools(passage, { caller: controlPlane(passage), signal }).catch(rethrow),
    callTool: (passage, call) => callTool(relay, passage, call).catch(rethrow),
    handle: async (at, request, text, { charge } = {}) => {
      const requestId = at.actor.origin.requestId
      const body = parseBody(request, text)
      if (body instanceof Response) return body
      if (Array.isArray(body.json) && body.json.length > 1) await charge?.(Math.min(body.json.length, maxBatch) - 1)
      const header = (name: string): string | undefined => request.headers.get(name) ?? undefined
      const route = classifyInboundRequest({
        httpMethod: request.method,
        body: body.json,
        ...defined('protocolVersionHeader', header('mcp-protocol-version')),
        ...defined('mcpMethodHeader', header('mcp-method')),
        ...defined('mcpNameHeader', header('mcp-name')),
      })
      if (route.kind === 'reject') return rejected(route, body.json)
      const place = placeOf(at)
      const enterStream = (): (() => void) => options.admission?.stream(at.actor.credentialId) ?? (() => undefined)
      return route.kind === 'legacy'
        ? serveLegacy({ place, memories, requestId, enterStream }, request, body.json)
        : serveModern({ place, requestId, enterStream }, request, body.json)
    },
    forget: (targetKey) => pool.forget(targetKey),
    close: async () => {
      parking.close()
      await pool.close()
    },
  }
}

const rethrow = (error: unknown): never => {
  throw domainError(error)
}

const defined = <K extends string>(key: K, value: string | undefined): Partial<Record<K, string>> =>
  value === undefined ? {} : ({ [key]: value } as Partial<Record<K, string>>)

/** The control plane cannot be asked anything while it waits. */
const controlPlane = ({ actor }: Passage): Caller => ({ era: 'modern', capabilities: {}, who: actor.userId })

async function callTool(relay: Relay, passage: Passage, call: ToolCall): Promise<CallToolResult> {
  const { name, requestId, signal, onProgress } = call
  const params: Json = {
    name,
    arguments: call.arguments ?? {},
    ...(onProgress ? { _meta: { progressToken: requestId } } : {}),
  }
  const downstream: Downstream = {
    requestId,
    signal,
    caller: controlPlane(passage),
    logLevel: undefined,
    multiRoundTrip: false,
    notify: ({ method, params: progress }) => {
      if (method === 'notifications/progress' && typeof progress?.['progress'] === 'number')
        onProgress?.(progress as { progress: number })
    },
  }
  const { resultType: _, ...result } = await relay.answer(passage, { method: 'tools/call', params }, downstream)
  return {
    ...result,
    content: Array.isArray(result['content']) ? (result['content'] as CallToolResult['content']) : [],
  }
}

function parseBody(request: Request, text: string): { json: unknown } | Response {
  if (request.method !== 'POST') return { json: undefined }
  if (!isJsonContentType(request.headers.get('content-type')))
    return failed(415, -32000, 'Unsupported Media Type: Content-Type must be application/json')
  if (text.length > maxRequestChars) return failed(413, -32000, 'Payload Too Large')
  try {
    return { json: JSON.parse(text) as unknown }
  } catch {
    return failed(400, -32700, 'Parse error: Invalid JSON')
  }
}
