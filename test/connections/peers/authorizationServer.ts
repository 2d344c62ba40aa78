import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Provider, type Adapter, type Configuration } from 'oidc-provider'

// The provider is written for Node 22; Node 20 lacks this one function of it.
URL.parse ??= (url, base) => (URL.canParse(url, base) ? new URL(url, base) : null)

export type Asked = { method: string; path: string; headers: IncomingHttpHeaders; body: URLSearchParams; text: string }

export type AuthorizationServer = {
  issuer: string
  provider: Provider
  /** Its registered clients, as they are stored. */
  clients: Adapter
  /** Every request it got. */
  seen: Asked[]
  tokenRequests: (grant: string) => Asked[]
  /** Life of access tokens that are given from now on. */
  accessTtl: number
  /** While it is on, nothing is answered but 503. */
  down: boolean
  /** What a token request waits for before it is worked on. */
  hold: Promise<void>
  close: () => Promise<void>
}

type Options = { settings?: Configuration; fetch?: (path: string) => Promise<Response>; clientDocuments?: boolean }

/** A real authorization server on loopback: PKCE, resource indicators, rotation, revocation, registration, client documents. */
export async function startAuthorizationServer({
  settings = {},
  fetch,
  clientDocuments = true,
}: Options = {}): Promise<AuthorizationServer> {
  const door: { handle?: ReturnType<Provider['callback']> } = {}
  const seen: Asked[] = []
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString()
      const path = (request.url ?? '').split('?', 1)[0] ?? ''
      seen.push({ method: request.method ?? '', path, headers: request.headers, body: new URLSearchParams(text), text })
      if (state.down) return void response.writeHead(503).end()
      // The provider reads a body that was read already from here.
      Object.assign(request, { body: text })
      void (path === '/token' ? state.hold : Promise.resolve()).then(() => door.handle?.(request, response))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const provider = new Provider(issuer, {
    cookies: { keys: ['a key of the test'] },
    scopes: ['offline_access', 'notes:read', 'notes:write'],
    pkce: { required: () => true },
    rotateRefreshToken: () => true,
    issueRefreshToken: () => Promise.resolve(true),
    ...(fetch ? { fetch: (url: string | URL) => fetch(new URL(url).pathname) } : {}),
    features: {
      devInteractions: { enabled: true },
      registration: { enabled: true },
      revocation: { enabled: true },
      clientIdMetadataDocument: { enabled: clientDocuments, ack: 'draft-02' },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, indicator) => ({
          scope: 'notes:read notes:write',
          audience: indicator,
          accessTokenTTL: state.accessTtl,
          accessTokenFormat: 'opaque',
        }),
        useGrantedResource: () => true,
      },
    },
    ...settings,
  } as Configuration)
  door.handle = provider.callback()
  const state: AuthorizationServer = {
    issuer,
    provider,
    clients: (provider.Client as unknown as { adapter: Adapter }).adapter,
    seen,
    tokenRequests: (grant) => seen.filter(({ path, body }) => path === '/token' && body.get('grant_type') === grant),
    accessTtl: 3600,
    down: false,
    hold: Promise.resolve(),
    close: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
  return state
}

const attribute = (html: string, name: string): string => new RegExp(`${name}="([^"]*)"`).exec(html)?.[1]?.replaceAll('&amp;', '&') ?? '' // prettier-ignore

/** A browser and the person before it: signs in where asked, consents or cancels, and stops where it is sent back. */
export async function visit(authorizationUrl: string, { login = 'ada', cancel = false } = {}): Promise<URL> {
  const cookies = new Map<string, string>()
  let at = new URL(authorizationUrl)
  let body: URLSearchParams | null = null
  for (let steps = 0; steps < 20; steps++) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ')
    const response: Response = await fetch(at, {
      method: body ? 'POST' : 'GET',
      headers: cookie ? { cookie } : {},
      body,
      redirect: 'manual',
    })
    for (const line of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? []
      if (value === '') cookies.delete(name)
      else cookies.set(name, value)
    }
    body = null
    const location = response.headers.get('location')
    if (location !== null) {
      at = new URL(location, at)
      if (at.pathname.startsWith('/oauth/callback/')) return at
      continue
    }
    const html = await response.text()
    if (!html.includes('<form')) throw new Error(`${response.status} ${at.href}: ${html.replaceAll(/<style>[\s\S]*<\/style>/g, '')}`) // prettier-ignore
    if (cancel) {
      at = new URL(/href="([^"]*abort[^"]*)"/.exec(html)?.[1] ?? '', at)
      continue
    }
    at = new URL(attribute(html.slice(html.indexOf('<form')), 'action'), at)
    const prompt = /name="prompt" value="(\w+)"/.exec(html)?.[1] ?? ''
    body = new URLSearchParams({ prompt, ...(prompt === 'login' ? { login, password: 'any' } : {}) })
  }
  throw new Error('The authorization server keeps asking.')
}
