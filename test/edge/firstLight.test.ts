import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createKey, createService, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'

describe('statements per request', () => {
  let world: World
  let org: Organization
  beforeAll(async () => {
    world = await createWorld()
    org = await seedOrganization(world)
  })
  afterAll(() => world.close())

  const nested = `query { viewer { id organization { name
    services(first: 20) { edges { node { id slug name } } }
    members(first: 10) { edges { node { role user { id name } } } } } } }`

  it('takes one statement for an organisation with its services, members and their users, whatever the sizes', async () => {
    const before = await world.graphql(nested, {}, org.admin)
    for (let i = 0; i < 25; i += 1)
      await createService(world, org.admin, { slug: `s-${i}`, endpoint: 'https://upstream.example/mcp' })
    const after = await world.graphql<any>(nested, {}, org.admin)
    expect(before.errors).toEqual([])
    expect(after.data.viewer.organization.services.edges).toHaveLength(20)
    expect(after.data.viewer.organization.members.edges).toHaveLength(4)
    expect([before.extensions.statements, after.extensions.statements]).toEqual([1, 1])
  })

  it('costs an API key two more: its own row and its registered document', async () => {
    const { data } = await world.graphql<any>(
      'mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { id sha256 requiredScopes cost } }',
      { input: { document: nested } },
      org.admin,
    )
    const key = await createKey(world, org.admin, ['mcp:read', 'org:read'])
    world.statements.length = 0
    const answer = await world.post<any>(
      { documentId: data.registerPersistedOperation.sha256 },
      { authorization: key.authorization },
    )
    expect(answer.errors).toEqual([])
    expect(world.statements).toHaveLength(3)
  })
})
