import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createServerAdapter } from '@whatwg-node/server'
import type { Config } from './config.ts'
import type { App } from './edge/app.ts'

export type Listening = {
  port: number
  /** Where it listens, with the port that it got. */
  address: string
  stop(): Promise<void>
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
  const server = createServer(
    { maxHeaderSize: 16_384, headersTimeout: 10_000, requestTimeout: 60_000, keepAliveTimeout: 5_000 },
    adapter,
  )
  server.maxRequestsPerSocket = 10_000
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
