import { NodeStreamableHTTPServerTransport, toNodeHandler } from '@modelcontextprotocol/node'
import {
  classifyInboundRequest,
  createMcpHandler,
  McpServer,
  type EventStore,
  type JSONRPCMessage,
} from '@modelcontextprotocol/server'
import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { listen, type Peer } from '../gateway/peers/http.ts'
import { addMultiRoundTrip, states } from './asking.ts'
import { addContent } from './content.ts'
import { addLegacy } from './legacyAsking.ts'

export type Era = 'legacy' | 'modern'

function build(era: Era): McpServer {
  const changing = { listChanged: true }
  const server = new McpServer(
    { name: 'conformance-upstream', version: '1.0.0' },
    {
      capabilities: { tools: changing, prompts: changing, resources: { ...changing, subscribe: true }, logging: {}, completions: {} },
      ...(era === 'modern' ? { requestState: { verify: states.verify } } : {}),
    } as never,
  ) // prettier-ignore
  addContent(server)
  if (era === 'legacy') addLegacy(server)
  else addMultiRoundTrip(server)
  server.server.setRequestHandler('completion/complete', () => ({ completion: { values: [], total: 0, hasMore: false } }))
  return server
} // prettier-ignore

/** What was sent, in order, so that a stream can be taken up where it broke off. */
function memory(): EventStore {
  const events: { id: string; stream: string; message: JSONRPCMessage }[] = []
  const streamOf = (id: string): string => events.find((event) => event.id === id)?.stream ?? ''
  return {
    storeEvent: (stream, message) => {
      const id = `${stream}:${events.length}`
      events.push({ id, stream, message })
      return Promise.resolve(id)
    },
    getStreamIdForEventId: (id) => Promise.resolve(streamOf(id)),
    replayEventsAfter: async (last, { send }) => {
      const from = events.findIndex(({ id }) => id === last)
      for (const { id, stream, message } of events.slice(from + 1))
        if (stream === streamOf(last) && 'jsonrpc' in message) await send(id, message)
      return streamOf(last)
    },
  }
}

type Handler = (request: IncomingMessage, response: ServerResponse, body: unknown) => Promise<void>

/** An MCP server that does what the suites ask of one, in the given eras. */
export async function startUpstream(eras: readonly Era[]): Promise<Peer> {
  const sessions = new Map<string, NodeStreamableHTTPServerTransport>()
  const modern = createMcpHandler(() => build('modern'), { legacy: 'reject' })
  const serveModern = toNodeHandler(modern) as Handler
  const serveLegacy: Handler = async (request, response, body) => {
    const id = request.headers['mcp-session-id']
    const held = typeof id === 'string' ? sessions.get(id) : undefined
    if (held) return held.handleRequest(request, response, body)
    if (id !== undefined) return void response.writeHead(404, { 'content-type': 'application/json' }).end(unknown)
    const transport = new NodeStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      eventStore: memory(),
      retryInterval: 100,
      onsessioninitialized: (sessionId) => void sessions.set(sessionId, transport),
      onsessionclosed: (sessionId) => void sessions.delete(sessionId),
    })
    await build('legacy').connect(transport)
    return transport.handleRequest(request, response, body)
  }
  const peer = await listen((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const refused = refusal(request)
      if (refused) return void response.writeHead(refused).end()
      const body = parsed(Buffer.concat(chunks).toString())
      const era = eras.length === 1 ? eras[0] : eraOf(request, body)
      void (era === 'modern' ? serveModern : serveLegacy)(request, response, body)
    })
  })
  return { ...peer, close: () => modern.close().then(() => peer.close()) }
}

const unknown = '{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}'

function parsed(text: string): unknown {
  try {
    return text === '' ? undefined : (JSON.parse(text) as unknown)
  } catch {
    return undefined
  }
}

function eraOf({ method = '', headers }: IncomingMessage, body: unknown): Era {
  const header = (name: string) => (typeof headers[name] === 'string' ? headers[name] : undefined)
  const version = header('mcp-protocol-version')
  const route = classifyInboundRequest({
    httpMethod: method,
    body,
    ...(version === undefined ? {} : { protocolVersionHeader: version }),
  })
  return route.kind === 'legacy' ? 'legacy' : 'modern'
}

const local = /^(https?:\/\/|)(localhost|127\.0\.0\.1|\[::1\])(?:|:\d+)$/

/** A page of another site must not reach a server on this machine (DNS rebinding). */
const refusal = ({ headers: { host = '', origin } }: IncomingMessage): number | undefined =>
  local.test(host) && (origin === undefined || local.test(origin)) ? undefined : 403
