import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

type Call = { id?: number | string; method?: string; params?: { name?: string; arguments?: unknown } }

/** The smallest MCP server of the legacy era: one tool that answers with its arguments. */
export async function startEcho(): Promise<{ url: string; close: () => Promise<void> }> {
  const results = ({ method, params }: Call): object | undefined => {
    if (method === 'initialize')
      return { protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo: { name: 'echo', version: '1' } }
    if (method === 'tools/list') return { tools: [{ name: 'echo', inputSchema: { type: 'object' } }] }
    if (method === 'tools/call') return { content: [{ type: 'text', text: JSON.stringify(params?.arguments) }] }
    return undefined
  }
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      if (request.method !== 'POST') return void response.writeHead(405).end()
      const call = JSON.parse(Buffer.concat(chunks).toString()) as Call
      if (call.id === undefined) return void response.writeHead(202).end()
      const result = results(call)
      const answer = result ? { result } : { error: { code: -32601, message: 'Method not found' } }
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify({ jsonrpc: '2.0', id: call.id, ...answer }))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
