import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { fresh, type Organization, type Person } from '../../harness/seed.ts'
import type { Answer, Credential, World } from '../../harness/world.ts'
import { visit } from './authorizationServer.ts'

export const publicUrl = 'https://platform.test'

const mutation = (name: string, answer: string): string =>
  `mutation ($input: ${name[0]?.toUpperCase()}${name.slice(1)}Input!) { ${name}(input: $input) ${answer} }`

/** Runs a mutation of one input and answers with all of it. */
export const run = (
  world: World,
  name: string,
  input: object,
  as: Credential,
  answer = '{ id }',
): Promise<Answer<any>> => world.graphql(mutation(name, answer), { input }, { authorization: as.authorization ?? '' })

let made = 0
/** A service whose credentials are OAuth. */
export async function oauthService(
  world: World,
  as: Person,
  endpoint: string,
  credentialMode: 'PERSONAL' | 'SHARED' = 'PERSONAL',
): Promise<{ serviceId: string; slug: string }> {
  const slug = `oauth-${++made}`
  const input = { slug, name: slug, endpoint, credentialMode, credentialKind: 'OAUTH' }
  const { data, errors } = await run(world, 'createService', input, as)
  if (errors.length) throw new Error(JSON.stringify(errors))
  return { serviceId: data.createService.id, slug }
}

export type Returned = { serviceId: string; state: string; code?: string; iss?: string; error?: string }

/** What the page that the browser comes back to hands over. */
export const returnedBy = (callback: URL): Returned => ({
  serviceId: callback.pathname.split('/').pop() ?? '',
  ...(Object.fromEntries(
    [...callback.searchParams].filter(([name]) => ['code', 'state', 'iss', 'error'].includes(name)),
  ) as Omit<Returned, 'serviceId'>),
})

export const begin = async (world: World, as: Person, serviceId: string, shared = false): Promise<string> => {
  const name = shared ? 'connectSharedService' : 'connectService'
  const { data, errors } = await run(world, name, { serviceId }, as, '{ authorizationUrl expiresAt }')
  if (errors.length) throw new Error(JSON.stringify(errors))
  return data[name].authorizationUrl
}

/** The whole way: begin, sign in and consent at the authorization server, come back, complete. */
export async function connectAccount(
  world: World,
  as: Person,
  serviceId: string,
  { login, shared = false }: { login: string; shared?: boolean },
): Promise<void> {
  const callback = await visit(await begin(world, as, serviceId, shared), { login })
  const { errors } = await run(world, 'completeServiceConnection', returnedBy(callback), as)
  if (errors.length) throw new Error(JSON.stringify(errors))
}

export const whoami = (world: World, as: Credential, service: string, n = 1): Promise<Answer<any>> =>
  world.graphql(
    'mutation ($input: CallToolInput!) { callTool(input: $input) { isError content } }',
    { input: { service, tool: 'whoami', arguments: { n } } },
    { authorization: as.authorization ?? '' },
  )

/** The official client at the platform's MCP door. */
export async function mcpClient(
  world: World,
  organization: Organization,
  as: Credential,
  service: string,
  mode: 'legacy' | 'auto',
): Promise<Client> {
  const client = new Client({ name: 'client-of-the-test', version: '1.0.0' }, { versionNegotiation: { mode } })
  const door = new URL(`https://platform.test/mcp/${organization.slug}/${service}`)
  await client.connect(
    new StreamableHTTPClientTransport(door, {
      fetch: (url, init) => world.app.fetch(new Request(url, init), { remoteAddress: '192.0.2.1' }),
      requestInit: { headers: { authorization: as.authorization ?? '' } },
    }),
  )
  return client
}

export { fresh }
