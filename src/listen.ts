import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createServerAdapter } from '@whatwg-node/server'
import type { Config } from './config.ts'
import type { App } from './edge/app.ts'
import { present } from './edge/failures.ts'
import { securityHeaders } from './edge/headers.ts'
import { overloaded } from './edge/load.ts'

export type Listening = {
  port: number
  /** Where it listens, with the port that it got. */
  address: string
  stop(): Promise<void>
}

// A request that trickles in is closed: its head after ten seconds, its body after sixty.
const limits = {
  maxHeaderSize: 16_384,
  headersTimeout: 10_000,
  requestTimeout: 60_000,
  keepAliveTimeout: 5_000,
  connectionsCheckingInterval: 2_000,
}

/** What does not count as work in hand: streams that stay open, which the gateway bounds, and the questions of a balancer. */
const streams = /^\/(mcp\/|healthz$|readyz$)/

/** The cheapest answer there is, since it is given when there is no time for any other. */
function refuse(response: ServerResponse): void {
  const requestId = randomUUID()
  const error = overloaded()
  response
    .writeHead(error.status, {
      ...securityHeaders,
      'Content-Type': 'application/json; charset=utf-8',
      'Retry-After': String(error.retryAfterSeconds),
      'X-Request-Id': requestId,
    })
    .end(JSON.stringify({ errors: [present(error, requestId)] }))
}

/** Puts the app behind an HTTP server whose every wait is bounded, and that stops without cutting a request. */
export async function listen(app: App, { host, port, shutdownTimeoutSeconds }: Config): Promise<Listening> {
  const running = new Set<Promise<Response>>()
  const adapter = createServerAdapter<{ req: IncomingMessage }>(
    (request, { req }) => {
      const answer = app.fetch(request, { remoteAddress: req.socket.remoteAddress ?? null })
      running.add(answer)
      void answer.finally(() => running.delete(answer))
      return answer
    },
    { fetchAPI: { Request, Response, Headers, ReadableStream, TextEncoder, URL, AbortController } as never },
  )
  const server = createServer(limits, (request, response) => {
    if (streams.test(request.url ?? '')) return void adapter(request, response)
    if (!app.load.begin()) return refuse(response)
    response.once('close', () => app.load.end())
    void adapter(request, response)
  })
  server.maxRequestsPerSocket = 10_000
  server.maxConnections = 10_000
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  const { port: bound } = server.address() as AddressInfo
  return {
    port: bound,
    address: `http://${host.includes(':') ? `[${host}]` : host}:${bound}`,
    async stop() {
      app.drain()
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeIdleConnections()
      const timer = setTimeout(() => server.closeAllConnections(), shutdownTimeoutSeconds * 1000)
      await Promise.allSettled(running)
      server.closeIdleConnections()
      await closed
      clearTimeout(timer)
      await app.close()
    },
  }
}
