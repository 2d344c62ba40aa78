/** The SDK's own server with one tool, on a port of its own; prints its address. `node --import tsx bench/echoServer.ts legacy|modern` */
import { NodeStreamableHTTPServerTransport, toNodeHandler } from '@modelcontextprotocol/node'
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server'
import { randomUUID } from 'node:crypto'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { z } from 'zod'

function build(): McpServer {
  const server = new McpServer({ name: 'echo', version: '1.0.0' })
  const inputSchema = z.object({ n: z.number() })
  server.registerTool('echo', { inputSchema }, ({ n }) => ({ content: [{ type: 'text', text: String(n) }] }))
  return server
}

const sessions = new Map<string, NodeStreamableHTTPServerTransport>()
const legacy: RequestListener = (request, response) => {
  const id = request.headers['mcp-session-id']
  const held = typeof id === 'string' ? sessions.get(id) : undefined
  if (held) return void held.handleRequest(request, response)
  const transport = new NodeStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (sessionId) => void sessions.set(sessionId, transport),
  })
  void build()
    .connect(transport)
    .then(() => transport.handleRequest(request, response))
}
const modern = toNodeHandler(createMcpHandler(build, { legacy: 'reject' })) as RequestListener

const server = createServer(process.argv[2] === 'legacy' ? legacy : modern)
server.listen(0, '127.0.0.1', () =>
  process.stdout.write(`http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp\n`),
)
