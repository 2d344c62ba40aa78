import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { NodeStreamableHTTPServerTransport, toNodeHandler } from '@modelcontextprotocol/node'
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server'
import { z } from 'zod'
import { listen, type Peer, type Seen } from './http.ts'

export type Recorder = Peer & {
  era: 'legacy' | 'modern'
  seen: Seen[]
  /** Forgets all sessions, as a restart would. */
  expire: () => void
  /** Tells legacy clients on their stream, and modern ones on theirs, that the tools have changed. */
  toolsChanged: () => void
  /** Names of tools besides those that are always there. */
  extra: Set<string>
}

/** An upstream that writes down every header it gets and answers `whoami` with the credential of the very request. */
export async function startRecorder(era: 'legacy' | 'modern'): Promise<Recorder> {
  const seen: Seen[] = []
  const extra = new Set<string>()
  const sessions = new Map<string, { transport: NodeStreamableHTTPServerTransport; server: McpServer }>()
  const build = (credential: (context: { http?: { req?: Request | undefined } | undefined }) => string): McpServer => {
    const server = new McpServer(
      { name: `recorder-${era}`, version: '1.0.0' },
      { capabilities: { tools: { listChanged: true } } },
    )
    const annotations = { readOnlyHint: true }
    server.registerTool('whoami', { inputSchema: z.object({ n: z.number() }), annotations }, ({ n }, context) => ({
      content: [{ type: 'text', text: `${credential(context)}#${n}` }],
    }))
    server.registerTool('write', { inputSchema: z.object({}) }, () => ({
      content: [{ type: 'text', text: 'written' }],
    }))
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
      const body = text === '' ? undefined : (JSON.parse(text) as { method?: string })
      seen.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers, rpc: body?.method })
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
