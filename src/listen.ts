import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Server as Listener, type AddressInfo } from 'node:net'
import { createServerAdapter } from '@whatwg-node/server'
import type { Config } from './config.ts'
import type { App } from './edge/app.ts'
import { present } from './edge/failures.ts'
import { securityHeaders } from './edge/headers.ts'
import { overloaded } from './edge/load.ts'
import { InFlight } from './kernel/inFlight.ts'

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

/** What is answered however much there is to do: the questions of a balancer. */
const questions = /^\/(healthz|readyz)$/
/** What says by itself when it is work in hand: an MCP stream stays open when there is nothing to do. */
const streams = /^\/mcp\//

/** How long a connection may lie idle in a stop: its client may have sent a request that has not arrived. */
const idleGraceMs = 500

/** The cheapest answer there is, since it is given when there is no time for any other. */
function refuse(response: ServerResponse, restMs: number): void {
  const requestId = randomUUID()
  const error = overloaded()
  // The event loop takes one new connection a round, and reads from all that stand: who comes again at once would keep
  // others from being heard, so the connection stays, and is read from after a while. When a response ends, what its request
  // still sends is read and thrown away, which would wake the connection again, so it rests from after that; and no later,
  // since a round may read from a connection many times.
  const { socket } = response
  response.req.once('close', () => {
    socket?.pause()
    setTimeout(() => socket?.resume(), restMs).unref()
  })
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
  const running = new InFlight<symbol, Promise<Response>>()
  const open = new InFlight<symbol, ServerResponse>()
  let stopping = false
  const adapter = createServerAdapter<{ req: IncomingMessage }>((request, { req }) => {
    const answer = app.fetch(request, { remoteAddress: req.socket.remoteAddress ?? null })
    const key = Symbol()
    running.set(key, answer)
    const done = (): unknown => running.delete(key)
    answer.then(done, done)
    return answer
  })
  const server = createServer(limits, (request, response) => {
    const key = Symbol()
    open.set(key, response)
    response.once('close', () => open.delete(key))
    // Answered, and told that the connection ends with it.
    if (stopping) response.shouldKeepAlive = false
    const url = request.url ?? ''
    if (questions.test(url)) return void adapter(request, response)
    if (!app.load.hasRoom()) return refuse(response, app.load.restMs)
    if (!streams.test(url)) {
      app.load.begin()
      response.once('close', () => app.load.end())
    }
    void adapter(request, response)
  })
  server.on('connection', () => app.load.connected())
  server.maxRequestsPerSocket = 10_000
  server.maxConnections = 10_000
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    // The event loop takes one connection a round: more of them wait in the kernel's line than its default of 511 holds.
    server.listen({ port, host, backlog: 4096 }, resolve)
  })
  const { port: bound } = server.address() as AddressInfo
  return {
    port: bound,
    address: `http://${host.includes(':') ? `[${host}]` : host}:${bound}`,
    async stop() {
      app.drain()
      stopping = true
      for (const response of open.values()) response.shouldKeepAlive = false
      // `server.close` would end idle connections at once, under the request that a client is just sending on one.
      const closed = new Promise<void>((resolve) => Listener.prototype.close.call(server, () => resolve()))
      const timer = setTimeout(() => server.closeAllConnections(), shutdownTimeoutSeconds * 1000)
      const idle = setInterval(() => server.closeIdleConnections(), idleGraceMs)
      await closed
      await Promise.allSettled(running.values())
      clearInterval(idle)
      clearTimeout(timer)
      await app.close()
    },
  }
}
