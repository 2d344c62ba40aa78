import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { metrics } from '../kernel/metrics.ts'
import type { Platform } from '../kernel/platform.ts'

/** Serves `/metrics` on a port of its own, which is private unless the operator opens it; null where none is configured. */
export async function serveMetrics(platform: Platform): Promise<{ address: string; close(): Promise<void> } | null> {
  const { metricsPort, metricsHost } = platform.config
  const collected = metrics(platform)
  if (metricsPort === undefined || !collected) return null
  const { registry } = collected
  const server = createServer(
    { requestTimeout: 5000, headersTimeout: 5000, keepAliveTimeout: 5000 },
    (request, response) => {
      if (request.method !== 'GET' || request.url !== '/metrics') return void response.writeHead(404).end()
      registry.metrics().then(
        (text) => response.writeHead(200, { 'Content-Type': registry.contentType }).end(text),
        () => response.writeHead(500).end(),
      )
    },
  )
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(metricsPort, metricsHost, resolve)
  })
  const { address, port } = server.address() as AddressInfo
  return {
    address: `http://${address.includes(':') ? `[${address}]` : address}:${port}/metrics`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
