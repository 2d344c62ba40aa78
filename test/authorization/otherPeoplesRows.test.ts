import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { member, system } from '../../src/kernel/actor.ts'
import { encodeNodeId } from '../../src/kernel/nodeId.ts'
import { scopes } from '../../src/kernel/permissions.ts'
import { rowDenial } from '../../src/kernel/rule.ts'
import { revokeApiKey as revokeApiKeyOperation } from '../../src/modules/apiKeys/operations.ts'
import { call, makeKey, register, revokeKey, trail, type Key } from '../apiKeys/keys.ts'
import { seedOrganization, withOldFactor, type Organization, type Person } from '../harness/seed.ts'
import { createWorld, type Answer, type Credential, type World } from '../harness/world.ts'

let world: World
let org: Organization
/** The administrator, by the second factor of each session. */
let admin: Record<'fresh' | 'old' | 'none', Person>
/** An administrator's keys: one with everything, and one that may administer members alone. */
let key: Key

const administrative = ['mcp:read', 'mcp:write', 'mcp:admin', 'user:read', 'user:token', 'org:read', 'org:admin']

beforeAll(async () => {
  world = await createWorld({ TRUSTED_PROXIES: '192.0.2.1/32' })
  org = await seedOrganization(world)
  admin = { fresh: org.admin, old: await withOldFactor(world, org.adminWithoutMfa), none: org.adminWithoutMfa }
  key = await makeKey(world, org.admin, { scopes: administrative })
  await world.platform.database.transact(system(), async (tx) => {
    for (const { userId } of [org.admin, org.developer]) {
      const log = { orgId: org.id, userId, serviceId: org.id, serviceSlug: 'records', method: 'tools/call', status: 'ok', durationMs: 1, requestId: 'r' } // prettier-ignore
      await tx.requestLog.createMany({ data: [log] })
      const day = { orgId: org.id, day: new Date('2026-01-01'), serviceSlug: 'records', tool: 'echo', userId, status: 'ok' } // prettier-ignore
      await tx.usageDaily.createMany({ data: [{ ...day, calls: 1, errors: 0, totalDurationMs: 1, maxDurationMs: 1 }] })
    }
  })
})
afterAll(() => world.close())

/** The same question in a session, and by a key as a registered operation. */
const ask = async (query: string, as: Person | Key, variables = {}): Promise<Answer<any>> =>
  'secret' in as
    ? call(world, await register(world, org.admin, query), as.secret, '198.51.100.7', variables)
    : world.graphql<any>(query, variables, { authorization: as.authorization })

describe('an act on another person’s row', () => {
  const document = 'mutation Revoke($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { id } }'
  const revoke = (as: Person | Key, id: string) => ask(document, as, { input: { id } })
  const stands = async (id: string): Promise<boolean> => {
    const { data } = await world.graphql<any>('query ($id: ID!) { node(id: $id) { ... on ApiKey { revokedAt } } }', { id }, org.developer) // prettier-ignore
    return data.node.revokedAt === null
  }

  it.each(['none', 'old'] as const)('is refused in a session whose second factor is: %s', async (factor) => {
    const theirs = await makeKey(world, org.developer)
    const refused = await revoke(admin[factor], theirs.id)
    expect(refused.errors[0]?.extensions).toMatchObject({ code: 'MFA_REQUIRED', methods: [], requires: { scopes: ['org:admin'], stepUp: true } }) // prettier-ignore
    expect(await stands(theirs.id)).toBe(true)
  })

  it('is refused to every key, whatever its scopes', async () => {
    const theirs = await makeKey(world, org.developer)
    expect((await revoke(key, theirs.id)).code).toBe('FORBIDDEN')
    const narrow = await makeKey(world, org.admin, { scopes: ['user:token', 'org:admin'] })
    expect((await revoke(narrow, theirs.id)).code).toBe('FORBIDDEN')
    expect(await stands(theirs.id)).toBe(true)
  })

  it('says the same of a row that is not there, where a second factor is all that is wanting', async () => {
    const theirs = await makeKey(world, org.developer)
    const absent = encodeNodeId('ApiKey', randomUUID())
    for (const as of [admin.none, key]) {
      const [there, nowhere] = [await revoke(as, theirs.id), await revoke(as, absent)]
      const said = ({ errors, data }: Answer<any>) => [data, errors.map(({ message, extensions }) => [message, extensions.code, extensions['requires']])] // prettier-ignore
      expect(said(nowhere)).toEqual(said(there))
    }
    for (const as of [admin.old, admin.fresh]) expect((await revoke(as, absent)).code).toBe('NOT_FOUND')
  })

  it('is of a row that is not there, for who has no business with it', async () => {
    const theirs = await makeKey(world, org.developer)
    const stranger = await seedOrganization(world)
    const without = await makeKey(world, org.admin, { scopes: ['user:token'] })
    for (const as of [org.colleague, stranger.admin, without]) expect((await revoke(as, theirs.id)).code).toBe('NOT_FOUND') // prettier-ignore
    expect(await stands(theirs.id)).toBe(true)
  })

  it('is refused by the rule itself, were the row found against both filters', () => {
    const facts = { orgId: org.id, credentialId: randomUUID(), origin: { ip: null, userAgent: null, requestId: 'r' } }
    const asked = (kind: 'user' | 'apiKey', { userId, role }: Person, given: readonly string[], mfaAt: Date | null, row: object | null) => {
      const actor = member({ ...facts, kind, userId, role, given, mfaAt }, new Date())
      return rowDenial(actor, revokeApiKeyOperation.requires, row, 'API key')?.code ?? 'permitted'
    } // prettier-ignore
    const theirs = { userId: org.developer.userId }
    const now = new Date()
    expect(asked('user', org.colleague, scopes, now, theirs)).toBe('NOT_FOUND')
    expect(asked('apiKey', org.admin, ['user:token'], null, theirs)).toBe('NOT_FOUND')
    expect(asked('apiKey', org.admin, scopes, null, theirs)).toBe('FORBIDDEN')
    expect(asked('user', org.admin, scopes, null, theirs)).toBe('MFA_REQUIRED')
    expect(asked('user', org.admin, scopes, now, theirs)).toBe('permitted')
    expect(asked('user', org.admin, scopes, now, null)).toBe('NOT_FOUND')
    expect(asked('apiKey', org.developer, ['user:token'], null, theirs)).toBe('permitted')
  })

  it('is written down when it is refused: who tried, on what, and what it would have taken', async () => {
    const theirs = await makeKey(world, org.developer)
    const before = (await trail(world, 'revokeApiKey.denied')).length
    await revoke(admin.old, theirs.id)
    await revoke(key, theirs.id)
    await revoke(org.colleague, theirs.id)
    const [first, second, ...more] = (await trail(world, 'revokeApiKey.denied')).slice(before)
    expect(more).toEqual([])
    const requires = '{"scopes":["org:admin"],"stepUp":true}'
    expect(first).toMatchObject({ userId: org.admin.userId, actorKind: 'user', outcome: 'denied', detail: { code: 'MFA_REQUIRED', requires } }) // prettier-ignore
    expect(encodeNodeId('ApiKey', first?.target ?? '')).toBe(theirs.id)
    expect(second).toMatchObject({ actorKind: 'apiKey', outcome: 'denied', detail: { code: 'FORBIDDEN', requires } })
  })

  it('is done with a fresh second factor, and on one’s own row without any', async () => {
    const theirs = await makeKey(world, org.developer)
    expect((await revokeKey(world, admin.fresh, { id: theirs.id })).errors).toEqual([])
    expect(await stands(theirs.id)).toBe(false)
    const [one, another] = [await makeKey(world, org.admin), await makeKey(world, org.admin)]
    expect((await revoke(admin.none, one.id)).errors).toEqual([])
    expect((await revoke(key, another.id)).errors).toEqual([])
  })
})

describe('another person’s records', () => {
  const lists = {
    requestLog: 'query Log { requestLog(first: 100) { edges { node { id userId } } } }',
    usage: 'query Usage { usage(first: 100) { edges { node { id userId } } } }',
    auditTrail: 'query Trail { auditTrail(first: 100) { edges { node { id userId } } } }',
  }
  type List = keyof typeof lists
  type Node = { id: string; userId: string }
  const nodes = async (list: List, as: Person | Key): Promise<Node[]> => {
    const { data, errors } = await ask(lists[list], as)
    expect(errors).toEqual([])
    return data[list].edges.map(({ node }: { node: Node }) => node)
  }
  const whose = async (list: List, as: Person | Key) => new Set((await nodes(list, as)).map(({ userId }) => userId))
  const all = Object.keys(lists) as List[]

  it.each(all)('are in the list with a second factor in the session, fresh or old, and not without: %s', async (list) => {
    for (const as of [admin.fresh, admin.old]) expect(await whose(list, as)).toContain(org.developer.userId)
    for (const as of [admin.none, key]) expect(await whose(list, as)).toEqual(new Set([org.admin.userId]))
  }) // prettier-ignore

  it.each(all)('are as absent by their id without one: %s', async (list) => {
    const theirs = (await nodes(list, admin.old)).find(({ userId }) => userId === org.developer.userId)
    const query = 'query One($id: ID!) { node(id: $id) { id } }'
    const variables = { id: theirs?.id }
    for (const as of [admin.fresh, admin.old]) expect((await ask(query, as, variables)).data.node).toEqual({ id: theirs?.id }) // prettier-ignore
    const said = ({ data, errors }: Answer<any>) => [data.node, errors.map(({ message, extensions: { code } }) => [message, code])] // prettier-ignore
    for (const as of [admin.none, key]) {
      const [type = ''] = Buffer.from(theirs?.id ?? '', 'base64')
        .toString()
        .split(':')
      const nowhere = said(await ask(query, as, { id: encodeNodeId(type, randomUUID()) }))
      expect(said(await ask(query, as, variables))).toEqual(nowhere)
      expect(nowhere).toEqual([null, [['No such row.', 'NOT_FOUND']]])
    }
  })

  it('are the keys of others, too', async () => {
    const theirs = await makeKey(world, org.developer)
    const keys = async (as: Person | Key): Promise<string[]> =>
      (await ask('query Keys { apiKeys(first: 100) { edges { node { id } } } }', as)).data.apiKeys.edges.map(({ node }: any) => node.id) // prettier-ignore
    for (const as of [admin.fresh, admin.old]) expect(await keys(as)).toContain(theirs.id)
    for (const as of [admin.none, key]) {
      expect(await keys(as)).not.toContain(theirs.id)
      expect(await keys(as)).toContain(key.id)
    }
  })

  it.each(['request-log.csv', 'request-log.json', 'usage.csv', 'usage.json'])('are not in a file without one: %s', async (file) => {
    const taken = async (as: Credential): Promise<string> => {
      const response = await world.fetch(`/exports/${file}`, { headers: { authorization: as.authorization ?? '' } })
      expect(response.status).toBe(200)
      return response.text()
    }
    for (const as of [admin.fresh, admin.old]) expect(await taken(as)).toContain(org.developer.userId)
    for (const as of [admin.none, { authorization: `Bearer ${key.secret}` }]) {
      const text = await taken(as)
      expect(text).not.toContain(org.developer.userId)
      expect(text).toContain(org.admin.userId)
    }
  }) // prettier-ignore

  it('are the organisation’s figures for a developer who holds org:read', async () => {
    expect(await whose('usage', org.developer)).toContain(org.admin.userId)
    const reader = await makeKey(world, org.developer, { scopes: ['user:read', 'org:read'] })
    expect(await whose('usage', reader)).toContain(org.admin.userId)
    const own = await makeKey(world, org.developer, { scopes: ['user:read'] })
    expect(await whose('usage', own)).toEqual(new Set([org.developer.userId]))
  })
})
