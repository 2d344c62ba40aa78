import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

export type LoopbackServer = {
  origin: string
  port: number
  /** How many TCP connections ever arrived: the proof that nothing was reached. */
  connections: () => number
  requests: IncomingMessage[]
}

type Place = { host?: string; port?: number; tls?: { key: string; cert: string } }

/** A real server on loopback that lives as long as the test. */
export async function loopbackServer(handle: RequestListener, place: Place = {}): Promise<LoopbackServer> {
  const { host = '127.0.0.1', port = 0, tls } = place
  const requests: IncomingMessage[] = []
  const listener: RequestListener = (request, response) => {
    requests.push(request)
    handle(request, response)
  }
  const server: Server = tls ? createTlsServer(tls, listener) : createServer(listener)
  let connections = 0
  server.on('connection', () => connections++)
  server.listen(port, host)
  await once(server, 'listening')
  onTestFinished(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  const bound = (server.address() as AddressInfo).port
  const literal = host.includes(':') ? `[${host}]` : host
  return {
    origin: `${tls ? 'https' : 'http'}://${literal}:${bound}`,
    port: bound,
    connections: () => connections,
    requests,
  }
}
