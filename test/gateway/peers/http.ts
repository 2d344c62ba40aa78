import { createServer, type IncomingHttpHeaders, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'

export type Peer = { url: string; close: () => Promise<void> }

/** A server on loopback, gone with all its connections when closed. */
export async function listen(listener: RequestListener): Promise<Peer> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/mcp`,
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

export type Seen = {
  method: string
  url: string
  headers: IncomingHttpHeaders
  rpc: string | undefined
  meta?: unknown
}
