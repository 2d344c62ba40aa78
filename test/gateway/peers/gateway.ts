import { Client, StreamableHTTPClientTransport, type ClientOptions } from '@modelcontextprotocol/client'
import { toNodeHandler } from '@modelcontextprotocol/node'
import { member } from '../../../src/kernel/actor.ts'
import { Secret } from '../../../src/kernel/secret.ts'
import { createGateway } from '../../../src/modules/gateway/gateway.ts'
import type { CallRecord, Fetch, Gateway, GatewayLimits, Passage } from '../../../src/modules/gateway/types.ts'
import type { ToolAccess } from '../../../src/modules/services/toolPolicy.ts'
import type { RequestListener } from 'node:http'
import { listen } from './http.ts'

type PassageFacts = {
  url: string
  user?: string
  scopes?: readonly string[]
  role?: 'VIEWER' | 'DEVELOPER' | 'ORG_ADMIN'
  token?: string
  trusted?: boolean
  tools?: Record<string, ToolAccess>
}

export function passage({
  url,
  user = 'ada',
  scopes = ['mcp:read', 'mcp:write'],
  role = 'DEVELOPER',
  token,
  trusted = true,
  tools = {},
}: PassageFacts): Passage {
  const origin = { ip: '127.0.0.1', userAgent: null, requestId: `request-of-${user}` }
  return {
    actor: member(
      {
        kind: 'apiKey',
        userId: user,
        orgId: 'org',
        role,
        credentialId: `key-of-${user}`,
        mfaAt: null,
        origin,
        given: scopes,
      },
      new Date(),
    ),
    orgId: 'org',
    serviceId: 'service',
    serviceSlug: 'service',
    trusted,
    toolAccess: new Map(Object.entries(tools)),
    target: {
      key: `${url} v1 ${token === undefined ? 'none' : user}`,
      endpoint: new URL(url),
      headers: new Map(token === undefined ? [] : [['authorization', new Secret(`Bearer ${token}`)]]),
    },
    confirm: () => Promise.resolve(),
  }
}

export type Mounted = {
  gateway: Gateway
  records: CallRecord[]
  /** What happens to a record before it counts as durable. */
  onRecord: (entry: CallRecord) => Promise<void>
  /** Where the gateway serves this passage to ordinary clients. */
  door: (of: Passage) => URL
  close: () => Promise<void>
}

/** The gateway on a real HTTP server; each passage has a path of its own, as the edge would have found it by the key. */
export async function mount(limits: Partial<GatewayLimits> = {}, fetch: Fetch = globalThis.fetch): Promise<Mounted> {
  const records: CallRecord[] = []
  const mounted = { onRecord: (_: CallRecord): Promise<void> => Promise.resolve() }
  const gateway = createGateway({
    fetch,
    record: async (entry) => {
      await mounted.onRecord(entry)
      records.push(entry)
    },
    limits: {
      connectMs: 5000,
      requestMs: 5000,
      maxConcurrentPerTarget: 64,
      poolIdleMs: 30_000,
      maxPool: 100,
      maxResultBytes: 4_000_000,
      fanOutMs: 1000,
      ...limits,
    },
  })
  const passages: Passage[] = []
  const serve = toNodeHandler({
    fetch: async (request: Request) => {
      const found = passages[Number(new URL(request.url).pathname.slice(1))]
      if (!found) return new Response(null, { status: 404 })
      return gateway.handle(found, request, request.method === 'POST' ? await request.text() : '')
    },
  }) as RequestListener
  const server = await listen(serve)
  return Object.assign(mounted, {
    gateway,
    records,
    door: (of: Passage) => new URL(`/${passages.push(of) - 1}`, server.url),
    close: async () => {
      await gateway.close()
      await server.close()
    },
  })
}

export type Mode = 'legacy' | 'auto'

/** The official client. It sends a platform key and a cookie, as a client of the platform would. */
export async function connect(
  door: URL,
  mode: Mode,
  options: ClientOptions = {},
  prepare: (client: Client) => void = () => undefined,
): Promise<Client> {
  const client = new Client(
    { name: 'client-of-the-test', version: '1.0.0' },
    { ...options, versionNegotiation: { mode } },
  )
  prepare(client)
  const headers = {
    authorization: 'Bearer mcp_sk_platform_key',
    cookie: '__Host-refresh=platform-cookie',
    'x-api-key': 'mcp_sk_platform_key',
    'x-forwarded-for': '203.0.113.7',
    forwarded: 'for=203.0.113.7',
    'user-agent': 'client/of-user-4711',
  }
  await client.connect(new StreamableHTTPClientTransport(door, { requestInit: { headers } }))
  return client
}
