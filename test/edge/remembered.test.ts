import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { call, makeKey, register, revokeKey } from '../apiKeys/keys.ts'
import { system } from '../../src/kernel/actor.ts'
import { seedOrganization, type Organization, type Person } from '../harness/seed.ts'
import { asked, createWorld, type World } from '../harness/world.ts'

/**
 * An instance remembers keys and registered operations, so that neither costs a statement. What it remembers is never
 * believed without the database: whatever ends or changes counts for the next request, on every instance.
 */
describe('what an instance remembers of a key and of an operation', () => {
  let world: World
  let other: World
  let org: Organization
  const document = 'query Viewer { viewer { role scopes } organization { slug } }'
  beforeAll(async () => {
    world = await createWorld()
    // The embedded database has one instance; on a server a second one makes each change.
    other = world.database.embedded ? world : await createWorld({}, { database: world.database })
    org = await seedOrganization(world)
  })
  afterAll(async () => {
    if (other !== world) await other.close()
    await world.close()
  })

  const warm = async (person: Person) => {
    const documentId = await register(world, org.admin, `${document} # ${person.email} ${performance.now()}`)
    const key = await makeKey(world, person, { scopes: ['mcp:read', 'org:read'] })
    for (let i = 0; i < 2; i += 1) expect((await call(world, documentId, key.secret)).status).toBe(200)
    world.statements.length = 0
    expect((await call(world, documentId, key.secret)).status).toBe(200)
    // The note of when a key was last used is written behind, for many keys at once.
    expect(asked(world)).toHaveLength(1)
    return { documentId, key }
  }
  const change = (data: { role?: 'VIEWER' | 'DEVELOPER'; deactivatedAt?: Date | null }, person: Person) =>
    other.platform.database.transact(system(), (tx) =>
      tx.membership.updateMany({ where: { orgId: person.orgId, userId: person.userId }, data }),
    )

  it('ends with the key', async () => {
    const { documentId, key } = await warm(org.developer)
    expect((await revokeKey(other, org.developer, { id: key.id, reason: 'test' })).errors).toEqual([])
    const refused = await call(world, documentId, key.secret)
    expect([refused.status, refused.code, refused.data]).toEqual([401, 'UNAUTHENTICATED', undefined])
  })

  it('ends with the operation, for keys and for people', async () => {
    const { documentId, key } = await warm(org.developer)
    await world.post({ documentId }, org.viewer)
    const { data } = await other.graphql<any>('{ persistedOperations(first: 100) { edges { node { id sha256 } } } }', {}, org.admin) // prettier-ignore
    const { node } = data.persistedOperations.edges.find((edge: any) => edge.node.sha256 === documentId)
    const remove = 'mutation ($input: DeletePersistedOperationInput!) { deletePersistedOperation(input: $input) { sha256 } }' // prettier-ignore
    expect((await other.graphql(remove, { input: { id: node.id } }, org.admin)).errors).toEqual([])
    for (const refused of [await call(world, documentId, key.secret), await world.post({ documentId }, org.viewer)])
      expect([refused.status, refused.code]).toEqual([404, 'PERSISTED_QUERY_NOT_FOUND'])
  })

  it('follows the role of its owner at once, down and up', async () => {
    const { documentId, key } = await warm(org.colleague)
    const seen = async () => (await call(world, documentId, key.secret)).data['viewer'].role as string
    await change({ role: 'VIEWER' }, org.colleague)
    expect(await seen()).toBe('VIEWER')
    await change({ role: 'DEVELOPER' }, org.colleague)
    expect(await seen()).toBe('DEVELOPER')
  })

  it('ends with the membership of its owner, and comes back with it', async () => {
    const { documentId, key } = await warm(org.colleague)
    await change({ deactivatedAt: new Date() }, org.colleague)
    expect((await call(world, documentId, key.secret)).status).toBe(401)
    await change({ deactivatedAt: null }, org.colleague)
    expect((await call(world, documentId, key.secret)).status).toBe(200)
  })

  it('holds for that very secret alone', async () => {
    const { documentId, key } = await warm(org.developer)
    const another = await makeKey(world, org.developer)
    const [, , publicId] = key.secret.split('_')
    const [, , , secret] = another.secret.split('_')
    expect((await call(world, documentId, `mcp_sk_${publicId}_${secret}`)).status).toBe(401)
  })

  it('is no way round the networks, scopes and rate of a key', async () => {
    const { documentId } = await warm(org.developer)
    const narrow = await makeKey(world, org.developer, { scopes: ['user:read'] })
    const slow = await makeKey(world, org.developer, { scopes: ['mcp:read', 'org:read'], requestsPerMinute: 3 })
    for (let i = 0; i < 3; i += 1) expect((await call(world, documentId, narrow.secret)).status).toBe(403)
    const statuses = []
    for (let i = 0; i < 5; i += 1) statuses.push((await call(world, documentId, slow.secret)).status)
    expect(statuses).toEqual([200, 200, 200, 429, 429])
  })
})
