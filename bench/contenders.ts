import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openEmbedded } from '../src/kernel/database/embedded.ts'
import { MasterKey } from '../src/kernel/vault.ts'
import { makeCallers, type Caller } from './credentials.ts'
import { seed, type Scale } from './database.ts'
import type { Target } from './load.ts'
import { freePort, startServer, type Started } from './servers.ts'

/** An organisation with twenty services and ten members with their users: what every contender is asked. */
export const nested = `query Nested { organization { name
  services(first: 20) { edges { node { id slug name } } }
  members(first: 10) { edges { node { role user { id name } } } } } }`

/** The same of PostGraphile, in the names that its own preset gives. */
const nestedOfPostgraphile = `query Nested($id: UUID!) { organization: organizationByRowId(rowId: $id) { name
  services: servicesByOrgId(first: 20) { edges { node { id slug name } } }
  members: membershipsByOrgId(first: 10) { edges { node { role user: userByUserId { id name } } } } } }`

const json = { 'content-type': 'application/json', accept: 'application/json' }
export const poolSize = '10'
const publicUrl = 'http://bench.test'
/** How many organisations' callers take turns. */
const callerCount = 32

export type Ours = Started & { callers: Caller[]; documentId: string; masterKey: string }

const orgOf = (token: string): string =>
  (JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { org: string }).org

/** The built platform on a database, as an operator runs it, with its log switched on. */
export async function startOurs(settings: Record<string, string>): Promise<Ours> {
  const masterKey = settings['MASTER_KEY'] ?? MasterKey.generate()
  const port = await freePort()
  const all = {
    ...settings,
    PUBLIC_URL: publicUrl,
    MASTER_KEY: masterKey,
    ACCESS_TOKEN_TTL_SECONDS: '86400',
    DATABASE_POOL_SIZE: poolSize,
    DEMO: 'off',
    PORT: String(port),
  }
  const made = await makeCallers(all, callerCount, nested)
  const server = await startServer('dist/main.js', all, { port, probe: '/readyz' })
  return { ...server, ...made, masterKey }
}

/** The built platform on the embedded database, in a folder of its own. */
export async function startEmbedded(scale: Scale): Promise<Ours> {
  const directory = await mkdtemp(join(tmpdir(), 'mcp-bench-'))
  const opened = await openEmbedded(directory)
  const client = await opened.pool('mcp_system').connect()
  await client.query('RESET ROLE')
  await seed(client, scale).finally(() => client.release())
  await opened.close()
  const started = await startOurs({ DATA_DIR: directory })
  return { ...started, stop: () => started.stop().then(() => rm(directory, { recursive: true, force: true })) }
}

type Way = 'token' | 'key'
type Form = 'document' | 'registered' | 'get'

/** Requests of all callers in one way. */
export function targetOf({ origin, callers, documentId }: Ours, way: Way, form: Form): Target {
  return {
    origin,
    method: form === 'get' ? 'GET' : 'POST',
    calls: callers.map(({ token, key }) => {
      const authorization = `Bearer ${way === 'token' ? token : key}`
      if (form === 'get')
        return { path: `/graphql?documentId=${documentId}`, headers: { authorization, accept: json.accept } }
      const body = JSON.stringify(form === 'registered' ? { documentId } : { query: nested })
      return { path: '/graphql', headers: { ...json, authorization }, body }
    }),
  }
}

/** Another server on the same database, asked with the same tokens. */
export async function startPeer(
  script: string,
  databaseUrl: string,
  ours: Ours,
): Promise<Started & { target: Target }> {
  const port = await freePort()
  const { keys } = (await (await fetch(`${ours.origin}/.well-known/jwks.json`)).json()) as { keys: object[] }
  const environment = {
    DATABASE_URL: databaseUrl,
    PORT: String(port),
    JWK: JSON.stringify(keys[0]),
    POOL_SIZE: poolSize,
    // PostGraphile checks plans and types at run time unless it is told that this is production.
    GRAPHILE_ENV: 'production',
  }
  const server = await startServer(`bench/${script}`, environment, { port, probe: '/' })
  const bodyFor = (token: string): string =>
    script.includes('postgraphile')
      ? JSON.stringify({ query: nestedOfPostgraphile, variables: { id: orgOf(token) } })
      : JSON.stringify({ query: nested })
  const calls = ours.callers.map(({ token }) => ({
    path: '/graphql',
    headers: { ...json, authorization: `Bearer ${token}` },
    body: bodyFor(token),
  }))
  return { ...server, target: { origin: server.origin, method: 'POST', calls } }
}
