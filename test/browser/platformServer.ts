import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Page } from 'playwright-core'
import { createWorld, type World } from '../harness/world.ts'

export type PlatformServer = { origin: string; world: World; close(): Promise<void> }

/** A whole platform on a port of localhost, which browsers take for a secure context. `page`: served at `/` in its place. */
export async function servePlatform(
  more: Parameters<typeof createWorld>[1] = {},
  page: string | null = null,
): Promise<PlatformServer> {
  const app: { answer?: (request: IncomingMessage) => Promise<Response> } = {}
  const listener: RequestListener = (request, response) => {
    void app.answer?.(request).then(async (given) => {
      for (const [name, value] of given.headers) response.setHeader(name, value)
      response.writeHead(given.status)
      response.end(Buffer.from(await given.arrayBuffer()))
    })
  }
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const origin = `http://localhost:${(server.address() as AddressInfo).port}`
  const world = await createWorld({ PUBLIC_URL: origin }, more)
  app.answer = async (request) => {
    if (page !== null && request.url === '/') return new Response(page, { headers: { 'content-type': 'text/html' } })
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const headers = Object.entries(request.headers).map(([name, value]): [string, string] => [name, String(value)])
    const body = chunks.length ? { body: Buffer.concat(chunks) } : {}
    return world.fetch(request.url ?? '/', { method: request.method ?? 'GET', headers, ...body })
  }
  return {
    origin,
    world,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await world.close()
    },
  }
}

/** A passkey on the device, which says yes by itself. */
export async function addAuthenticator(page: Page): Promise<void> {
  const devtools = await page.context().newCDPSession(page)
  await devtools.send('WebAuthn.enable')
  await devtools.send('WebAuthn.addVirtualAuthenticator', {
    options: {
      protocol: 'ctap2',
      transport: 'internal',
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  })
}
