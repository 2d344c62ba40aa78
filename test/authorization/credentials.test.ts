import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import type { Tx } from '../../src/kernel/database/door.ts'
import {
  addMember,
  createKey,
  createService,
  seedOrganization,
  type Organization,
  type Person,
} from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'

let world: World
let org: Organization
const document = 'query Mine { viewer { role } services(first: 5) { edges { node { slug } } } }'
let documentId: string
beforeAll(async () => {
  world = await createWorld()
  org = await seedOrganization(world)
  await createService(world, org.admin, { slug: 'tools', endpoint: 'http://127.0.0.1:9/mcp', credentialMode: 'PERSONAL' })
  const register = 'mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { sha256 } }'
  const { data } = await world.graphql<any>(register, { input: { document } }, org.admin)
  documentId = data.registerPersistedOperation.sha256
}) // prettier-ignore
afterAll(() => world.close())

/** What GraphQL and the MCP door answer to a credential. Without a token for the service, the MCP door admits as far as saying so. */
async function knock(authorization: string): Promise<string[]> {
  const body = authorization.includes('mcp_sk_') ? { documentId } : { query: document }
  const graphql = await world.post<any>(body, { authorization })
  const headers = { authorization, 'content-type': 'application/json', accept: 'application/json, text/event-stream' }
  const mcp = await world.fetch(`/mcp/${org.slug}/tools`, { method: 'POST', headers, body: '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' }) // prettier-ignore
  const refusal = (await mcp.json()) as { errors?: { extensions: { code: string } }[] }
  const seen = graphql.data?.viewer ? 'sees' : ''
  return [`${graphql.status} ${graphql.code ?? seen}`, `${mcp.status} ${refusal.errors?.[0]?.extensions.code ?? ''}`]
}
const admitted = ['200 sees', '400 SERVICE_UNCONFIGURED']
const refused = ['401 UNAUTHENTICATED', '401 UNAUTHENTICATED']

type Member = { person: Person; key: Awaited<ReturnType<typeof createKey>> }
const asSystem = (change: (tx: Tx) => Promise<unknown>) => world.platform.database.transact(system(), change)
const past = () => new Date(Date.now() - 1000)

describe('a credential', () => {
  type Credential = 'session' | 'key'
  const ends: [what: string, ends: Credential[], end: (member: Member) => Promise<unknown>][] = [
    ['whose key was revoked by its owner', ['key'], ({ person, key }) =>
      world.graphql('mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { id } }', { input: { id: key.id } }, person)],
    ['whose key was revoked by an administrator', ['key'], ({ key }) =>
      world.graphql('mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { id } }', { input: { id: key.id } }, org.admin)],
    ['whose key expired', ['key'], ({ person }) =>
      asSystem((tx) => tx.apiKey.updateMany({ where: { userId: person.userId }, data: { expiresAt: past() } }))],
    ['whose session was signed out', ['session'], ({ person }) => world.graphql('mutation { signOut { sessionId } }', {}, person)],
    ['whose session expired', ['session'], ({ person }) =>
      asSystem((tx) => tx.session.updateMany({ where: { userId: person.userId }, data: { expiresAt: past() } }))],
    ['of a member who was deactivated', ['session', 'key'], ({ person }) =>
      asSystem((tx) => tx.membership.updateMany({ where: { userId: person.userId }, data: { deactivatedAt: new Date() } }))],
    ['of an account that was disabled', ['session', 'key'], ({ person }) =>
      asSystem((tx) => tx.user.updateMany({ where: { id: person.userId }, data: { disabledAt: new Date() } }))],
    ['of a member whose role was raised', ['session'], ({ person }) =>
      asSystem((tx) => tx.membership.updateMany({ where: { userId: person.userId }, data: { role: 'ORG_ADMIN' } }))],
    ['of a member whose role was lowered', ['session'], ({ person }) =>
      asSystem((tx) => tx.membership.updateMany({ where: { userId: person.userId }, data: { role: 'VIEWER' } }))],
  ] // prettier-ignore

  it.each(ends)('%s is refused at the next request, at both doors', async (_what, which, end) => {
    const person = await addMember(world, org.id, 'DEVELOPER')
    const key = await createKey(world, person, ['mcp:read', 'mcp:write', 'org:read'])
    const doors = { session: person.authorization, key: key.authorization }
    // Twice, so that whatever remembers a verified credential remembers these.
    for (const authorization of [...Object.values(doors), ...Object.values(doors)])
      expect(await knock(authorization)).toEqual(admitted)
    await end({ person, key })
    for (const [name, authorization] of Object.entries(doors))
      expect(await knock(authorization), name).toEqual(which.includes(name as Credential) ? refused : admitted)
  })

  it('loses what a lowered role cannot hold, and keeps the rest', async () => {
    const person = await addMember(world, org.id, 'DEVELOPER')
    const key = await createKey(world, person, ['mcp:read', 'mcp:write'])
    const write = `mutation { createService(input: { slug: "${randomUUID().slice(0, 8)}", name: "n", endpoint: "https://a.example/mcp" }) { id } }` // prettier-ignore
    const register = 'mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { sha256 } }' // prettier-ignore
    const { data } = await world.graphql<any>(register, { input: { document: write } }, org.admin)
    await asSystem((tx) => tx.membership.updateMany({ where: { userId: person.userId }, data: { role: 'VIEWER' } }))
    const answer = await world.post({ documentId: data.registerPersistedOperation.sha256 }, { authorization: key.authorization }) // prettier-ignore
    expect([answer.code, answer.extensions]).toEqual(['FORBIDDEN', expect.anything()])
    expect(await knock(key.authorization)).toEqual(admitted)
  })
})

describe('colleagues in one organisation', () => {
  it('see neither each other’s keys nor tokens, and cannot end them', async () => {
    const { developer, colleague } = org
    const key = await createKey(world, developer, ['mcp:read'])
    const service = await createService(world, developer, { slug: 'personal', endpoint: 'https://a.example/mcp', credentialMode: 'PERSONAL' }) // prettier-ignore
    const store = 'mutation ($input: StoreServiceTokenInput!) { storeServiceToken(input: $input) { token { hint } } }'
    const token = { serviceId: service, token: 'token-of-the-developer-abcd' }
    expect((await world.graphql<any>(store, { input: token }, developer)).data.storeServiceToken.token.hint).toBe(
      'abcd',
    )
    const look = `query ($id: ID!) { apiKeys(first: 50) { edges { node { id } } } service(slug: "personal") { token { hint } } }`
    const seen = await world.graphql<any>(look.replace('($id: ID!) ', ''), {}, colleague)
    expect(seen.errors).toEqual([])
    expect(seen.data.apiKeys.edges.map((edge: any) => edge.node.id)).not.toContain(key.id)
    expect(seen.data.service.token).toBeNull()
    const end = (id: string) => world.graphql('mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { id } }', { input: { id } }, colleague) // prettier-ignore
    const forget = 'mutation ($input: DeleteServiceTokenInput!) { deleteServiceToken(input: $input) { id } }'
    expect((await end(key.id)).code).toBe('NOT_FOUND')
    expect((await world.graphql(forget, { input: { serviceId: service } }, colleague)).code).toBe('NOT_FOUND')
    expect(await knock(key.authorization)).toEqual(admitted)
  })

  it.each([
    ['viewer', 'createService', '{ slug: "x", name: "x", endpoint: "https://a.example/mcp" }', 'FORBIDDEN'],
    ['viewer', 'createApiKey', '{ name: "x", scopes: ["mcp:read"] }', 'FORBIDDEN'],
    ['developer', 'updateOrganization', '{ name: "x" }', 'FORBIDDEN'],
    ['developer', 'trustService', '{ id: "00000000-0000-4000-8000-000000000000", trusted: true }', 'FORBIDDEN'],
    ['developer', 'createApiKey', '{ name: "x", scopes: ["org:admin"] }', 'FORBIDDEN'],
    ['adminWithoutMfa', 'updateOrganization', '{ name: "x" }', 'MFA_REQUIRED'],
  ] as const)('hold to their role: a %s at %s', async (who, mutation, input, code) => {
    expect((await world.graphql(`mutation { ${mutation}(input: ${input}) { __typename } }`, {}, org[who])).code).toBe(
      code,
    )
  })
})
