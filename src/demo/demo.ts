import { randomBytes } from 'node:crypto'
import { system, type Member } from '../kernel/actor.ts'
import type { Operation } from '../kernel/operation.ts'
import type { Platform } from '../kernel/platform.ts'
import { createApiKey } from '../modules/apiKeys/operations.ts'
import { signUp } from '../modules/organizations/operations.ts'
import { registerPersistedOperation } from '../modules/persisted/operations.ts'
import { createService } from '../modules/services/operations.ts'
import { signedIn } from '../modules/sessions/operations.ts'
import { startDemoServer } from './mcpServer.ts'

export type Demo = {
  /** The one origin on loopback that upstream calls may reach besides the operator's networks. */
  origin: string
  /** On an empty database: founds the demo organisation; the answer says how to try it at an address. */
  found(platform: Platform): Promise<(address: string) => string>
  /** On a later start: the service is where it listens now. */
  resume(platform: Platform): Promise<null>
  close(): Promise<void>
}

const slug = 'notebook'
const email = 'admin@demo.example'
const document =
  'query Tour { viewer { name role organization { name services(first: 5) { edges { node { slug tools { name access } } } } } } }'

export const isEmpty = async (platform: Platform): Promise<boolean> =>
  (await platform.database.read(system(), (tx) => tx.organization.findFirst({ select: { id: true } }))) === null

const as = <Output>(
  operation: Operation<unknown, Output>,
  actor: Member,
  platform: Platform,
  input: unknown,
): Promise<Output> => operation.run({ actor, platform }, input)

/**
 * Runs the bundled MCP service, and on an empty database founds a demo organisation with it: a random password and a
 * key, shown once. It takes a free port at every start, and tells the demo organisation's row.
 */
export async function startDemo(): Promise<Demo> {
  const server = await startDemoServer()
  return {
    origin: new URL(server.url).origin,
    close: () => server.close(),
    async resume(platform) {
      // Only a row that the demo left behind: an organisation may well call itself Demo and have a notebook elsewhere.
      const left = { slug, organization: { slug: 'demo' }, endpoint: { startsWith: 'http://127.0.0.1:', endsWith: '/mcp' }, trusted: true } // prettier-ignore
      await platform.database.transact(system(), (tx) =>
        tx.service.updateMany({ where: left, data: { endpoint: server.url } }),
      )
      return null
    },
    async found(platform) {
      const password = randomBytes(15).toString('base64url')
      const { session } = await signUp.run(
        { actor: system(), platform },
        { email, password, name: 'Demo Admin', organizationName: 'Demo' },
      )
      if (!session) throw new Error('The demo organisation has no session.')
      const { actor } = await signedIn({ actor: system(), platform, now: platform.clock() }, session)
      const service = await as(createService as Operation<unknown, { id: string }>, actor, platform, {
        slug,
        name: 'Notebook',
        description: 'A small MCP service to try the platform on.',
        endpoint: server.url,
      })
      await trustDemo(platform, service.id)
      const { sha256 } = await as(
        registerPersistedOperation as Operation<unknown, { sha256: string }>,
        actor,
        platform,
        { document },
      )
      const key = await createApiKey.run(
        { actor, platform },
        { name: 'demo', scopes: ['mcp:read', 'mcp:write', 'user:read', 'org:read'] },
      )
      return (address) => introduction({ address, password, sha256, key: key.secret.reveal() })
    },
  }
}

// The bundled service is our own, so the hints that it gives about its tools are believed from the start.
async function trustDemo(platform: Platform, id: string): Promise<void> {
  await platform.database.transact(system(), (tx) =>
    tx.service.update({ where: { id }, data: { trusted: true }, select: { id: true } }),
  )
}

const introduction = ({
  address,
  password,
  sha256,
  key,
}: {
  address: string
  password: string
  sha256: string
  key: string
}): string => `
A demo organisation was made. This is shown once.

  e-mail    ${email}
  password  ${password}
  API key   ${key}

1. A registered GraphQL operation, with the key:

curl -sS ${address}/graphql -H 'Authorization: Bearer ${key}' -H 'Content-Type: application/json' -d '{"documentId":"${sha256}"}'

2. A tool of a real MCP service, by an MCP client, through the gateway:

MCP_API_KEY='${key}' npx mcp-platform call ${address}/mcp/demo/${slug} echo '{"message":"hello"}'

3. GraphiQL, for the admin above:

${address}/graphql

`
