import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { NodeStreamableHTTPServerTransport, toNodeHandler } from '@modelcontextprotocol/node'
import {
  acceptedContent,
  createMcpHandler,
  inputRequired,
  inputResponse,
  McpServer,
} from '@modelcontextprotocol/server'
import { z } from 'zod'
import { listen, type Peer, type Seen } from './http.ts'

export type Recorder = Peer & {
  era: 'legacy' | 'modern'
  seen: Seen[]
  /** Forgets all sessions, as a restart would. */
  expire: () => void
  /** Tells legacy clients on their stream, and modern ones on theirs, that the tools have changed. */
  toolsChanged: () => void
  /** Tells those who watch this resource that it has changed. */
  resourceChanged: (uri: string) => void
  /** Resources that legacy clients have subscribed to. */
  watched: Set<string>
  /** Names of tools besides those that are always there. */
  extra: Set<string>
}

/** An upstream that writes down every header it gets and answers `whoami` with the credential of the very request. */
export async function startRecorder(era: 'legacy' | 'modern'): Promise<Recorder> {
  const seen: Seen[] = []
  const extra = new Set<string>()
  const watched = new Set<string>()
  const sessions = new Map<string, { transport: NodeStreamableHTTPServerTransport; server: McpServer }>()
  const build = (credential: (context: { http?: { req?: Request | undefined } | undefined }) => string): McpServer => {
    const server = new McpServer(
      { name: `recorder-${era}`, version: '1.0.0' },
      { capabilities: { tools: { listChanged: true }, resources: { subscribe: true }, logging: {} } },
    )
    const annotations = { readOnlyHint: true }
    server.registerTool('whoami', { inputSchema: z.object({ n: z.number() }), annotations }, ({ n }, context) => ({
      content: [{ type: 'text', text: `${credential(context)}#${n}` }],
    }))
    server.registerTool('write', { inputSchema: z.object({}) }, () => ({
      content: [{ type: 'text', text: 'written' }],
    }))
    interactive(server)
    server.registerResource('clock', 'test://clock', {}, (uri) => ({ contents: [{ uri: uri.href, text: 'tick' }] }))
    if (era === 'legacy') {
      server.server.setRequestHandler('resources/subscribe', ({ params }) => (watched.add(params.uri), {}))
      server.server.setRequestHandler('resources/unsubscribe', ({ params }) => (watched.delete(params.uri), {}))
    }
    for (const name of extra)
      server.registerTool(name, { inputSchema: z.object({}), annotations }, () => ({ content: [] }))
    return server
  }
  const modern = createMcpHandler(() => build(({ http }) => http?.req?.headers.get('authorization') ?? 'nobody'), {
    legacy: 'reject',
  })
  const serveModern = toNodeHandler(modern) as (
    request: IncomingMessage,
    response: ServerResponse,
    body: unknown,
  ) => Promise<void>

  const peer = await listen((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString()
      const body = text === '' ? undefined : (JSON.parse(text) as { method?: string; params?: { _meta?: unknown } })
      seen.push({
        method: request.method ?? '',
        url: request.url ?? '',
        headers: request.headers,
        rpc: body?.method,
        meta: body?.params?._meta,
      })
      if (era === 'modern') return void serveModern(request, response, body)
      void (async () => {
        const id = request.headers['mcp-session-id']
        const held = typeof id === 'string' ? sessions.get(id) : undefined
        if (held) return held.transport.handleRequest(request, response, body)
        if (id !== undefined || body?.method !== 'initialize')
          return void response
            .writeHead(id === undefined ? 400 : 404, { 'content-type': 'application/json' })
            .end(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code: -32000, message: 'Bad Request' } }))
        const transport = new NodeStreamableHTTPServerTransport({
          sessionIdGenerator: () => randomUUID(),
          onsessioninitialized: (sessionId) => void sessions.set(sessionId, { transport, server }),
          onsessionclosed: (sessionId) => void sessions.delete(sessionId),
        })
        const server = build(({ http }) => http?.req?.headers.get('authorization') ?? 'nobody')
        await server.connect(transport)
        return transport.handleRequest(request, response, body)
      })()
    })
  })
  return {
    ...peer,
    era,
    seen,
    extra,
    watched,
    resourceChanged: (uri) => {
      modern.notify.resourceUpdated(uri)
      if (watched.has(uri)) for (const { server } of sessions.values()) void server.server.sendResourceUpdated({ uri })
    },
    expire: () => sessions.clear(),
    toolsChanged: () => {
      modern.notify.toolsChanged()
      for (const { server } of sessions.values()) server.sendToolListChanged()
    },
    close: async () => {
      await modern.close()
      await peer.close()
    },
  }
}

const answer = z.object({ dish: z.string() })

/** Tools that ask their caller for something: written once, a legacy session makes requests of it. */
function interactive(server: McpServer): void {
  const annotations = { readOnlyHint: true }
  server.registerTool(
    'order',
    { inputSchema: z.object({ guest: z.string() }), annotations },
    ({ guest }, { mcpReq }) => {
      const chosen = acceptedContent(mcpReq.inputResponses, 'menu', answer)
      if (chosen) return { content: [{ type: 'text', text: `${guest} has ${chosen.dish}` }] }
      if (mcpReq.inputResponses) return { content: [{ type: 'text', text: `${guest} has nothing` }] }
      return inputRequired({
        inputRequests: { menu: inputRequired.elicit({ message: `What will ${guest} have?`, requestedSchema: answer }) },
      })
    },
  )
  server.registerTool(
    'think',
    { inputSchema: z.object({ about: z.string() }), annotations },
    ({ about }, { mcpReq }) => {
      const thought: unknown = mcpReq.inputResponses && inputResponse(mcpReq.inputResponses, 'thought')
      if (thought) return { content: [{ type: 'text', text: JSON.stringify(thought) }] }
      const request = {
        messages: [{ role: 'user' as const, content: { type: 'text' as const, text: about } }],
        maxTokens: 10,
      }
      return inputRequired({ inputRequests: { thought: inputRequired.createMessage(request) } })
    },
  )
  server.registerTool('talk', { inputSchema: z.object({}), annotations }, async (_, { mcpReq }) => {
    await mcpReq.log('debug', 'whispered')
    await mcpReq.log('error', 'shouted')
    return { content: [{ type: 'text', text: 'said' }] }
  })
}
