import { randomUUID } from 'node:crypto'
import { isInterfaceType } from 'graphql'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import { encodeNodeId } from '../../src/kernel/nodeId.ts'
import { scopes } from '../../src/kernel/permissions.ts'
import { buildSchema } from '../../src/schema.ts'
import { createKey, createService, password, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type Credential, type World } from '../harness/world.ts'
import { everyAttack, everyList, samples, type Attack } from './attacks.ts'

const schema = buildSchema()
const attacks = everyAttack(schema)
const lists = everyList(schema)
const slug = 'only-in-alpha'

let world: World
let alpha: Organization
let beta: Organization
let alphaKey: Awaited<ReturnType<typeof createKey>>
let betaKey: Awaited<ReturnType<typeof createKey>>
/** Alpha's rows: what they are, as the API names them, and their UUIDs. */
let before: string[]
let victims: [type: string, uuid: string][]
let alphaInvitation: { id: string }
let alphaCollection: { id: string }
let alphaDocument: { id: string; sha256: string }

async function fill(of: Organization): Promise<void> {
  const as = of.admin
  const run = async (name: string, type: string, input: object, answer: string) => {
    const { data, errors } = await world.graphql<any>(`mutation ($input: ${type}!) { ${name}(input: $input) ${answer} }`, { input }, as) // prettier-ignore
    expect(errors, name).toEqual([])
    return data[name]
  }
  const endpoint = 'http://127.0.0.1:9/secret-of-alpha'
  const serviceId = await createService(world, as, { slug, endpoint, credentialMode: 'PERSONAL' })
  await run('storeServiceToken', 'StoreServiceTokenInput', { serviceId, token: 'token-of-alpha-1234567890' }, '{ id }')
  await run('storeSharedToken', 'StoreSharedTokenInput', { serviceId, token: 'token-of-alpha-1234567890' }, '{ id }')
  await run('setToolAccess', 'SetToolAccessInput', { serviceId, tool: 'echo', access: 'READ' }, '{ id }')
  const collection = { slug: 'collection-of-alpha', name: 'Collection of Alpha', tools: [{ serviceId, tool: 'echo' }] }
  alphaCollection = await run('publishCollection', 'PublishCollectionInput', collection, '{ id }')
  alphaInvitation = await run(
    'inviteMember',
    'InviteMemberInput',
    { email: 'guest-of-alpha@example.com', role: 'VIEWER' },
    '{ id }',
  )
  const registered = { document: 'query OfAlpha { viewer { id } }' }
  alphaDocument = await run(
    'registerPersistedOperation',
    'RegisterPersistedOperationInput',
    registered,
    '{ id sha256 }',
  )
  const who = { orgId: of.id, userId: as.userId, serviceSlug: slug }
  await world.platform.database.transact(system(), async (tx) => {
    const call = { ...who, serviceId: randomUUID(), method: 'tools/call', status: 'ok', durationMs: 1, requestId: 'request-of-alpha' } // prettier-ignore
    await tx.requestLog.createMany({ data: [call, call] })
    const usage = { ...who, tool: 'echo', calls: 3, errors: 0, totalDurationMs: 3n, maxDurationMs: 2 }
    await tx.usageDaily.createMany({
      data: [
        { ...usage, day: new Date() },
        { ...usage, day: new Date(0) },
      ],
    })
    await tx.secondFactor.createMany({ data: [{ userId: as.userId, kind: 'TOTP', label: 'phone of alpha', confirmedAt: new Date() }] }) // prettier-ignore
  })
}

const uuidOf = (id: string): string => Buffer.from(id, 'base64url').toString().split(':')[1] ?? ''

const rowsOf = async (of: Organization): Promise<[string, string][]> => {
  return world.platform.database.read(system(), async (tx) => {
    const where = { orgId: of.id }
    const mine = { where: { userId: of.admin.userId }, select: { id: true } } as const
    const found: Record<string, { id: string }[]> = {
      Organization: [{ id: of.id }],
      User: [{ id: of.admin.userId }],
      Membership: await tx.membership.findMany({ where, take: 1, select: { id: true } }),
      Service: await tx.service.findMany({ where, select: { id: true } }),
      Collection: [{ id: uuidOf(alphaCollection.id) }],
      ApiKey: await tx.apiKey.findMany({ where, select: { id: true } }),
      RequestLogEntry: await tx.requestLog.findMany({ where, select: { id: true } }),
      Usage: await tx.usageDaily.findMany({ where, select: { id: true } }),
      AuditEvent: await tx.auditEvent.findMany({ where, take: 1, select: { id: true } }),
      Session: await tx.session.findMany(mine),
      Invitation: [{ id: uuidOf(alphaInvitation.id) }],
      SecondFactor: await tx.secondFactor.findMany(mine),
    }
    const all = { ...found, PersistedOperation: [{ id: uuidOf(alphaDocument.id) }] }
    return Object.entries(all).flatMap(([type, rows]) => rows.map(({ id }): [string, string] => [type, id]))
  })
}

beforeAll(async () => {
  world = await createWorld()
  alpha = await seedOrganization(world, 'Alpha Secret')
  beta = await seedOrganization(world, 'Beta')
  alphaKey = await createKey(world, alpha.admin, ['mcp:read'])
  betaKey = await createKey(world, beta.admin, [...scopes])
  await createService(world, beta.admin, { slug: 'in-beta', endpoint: 'http://127.0.0.1:9/mcp' })
  await fill(alpha)
  const ownMember = await world.platform.database.read(system(), (tx) =>
    tx.membership.findFirstOrThrow({ where: { userId: beta.colleague.userId }, select: { id: true } }),
  )
  const removed = encodeNodeId('Membership', ownMember.id)
  Object.assign(samples, { email: beta.admin.email, password, 'removeMember.id': removed })
  victims = [...new Map(await rowsOf(alpha))]
  before = await snapshot()
})
afterAll(() => world.close())

/** All of an answer but what names the request itself, and what is left of the caller’s own budget. */
async function bytes(response: Response): Promise<string> {
  const requestId = response.headers.get('x-request-id') ?? ''
  const headers = [...response.headers].filter(([name]) => !/^(x-request-id|content-length|ratelimit.*)$/.test(name))
  return JSON.stringify([
    response.status,
    headers,
    (await response.text()).replaceAll(requestId, '').replace(/"remaining":\d+/, ''),
  ])
}
const post = (body: object, as: Credential) =>
  world.fetch('/graphql', { method: 'POST', headers: { 'content-type': 'application/json', ...as }, body: JSON.stringify(body) }) // prettier-ignore

/** Sends as a person with the document, or as a key with the document registered by its organisation before. */
const doors: [string, () => (document: string, variables?: object) => Promise<Response>][] = [
  ['a JWT', () => (query, variables = {}) => post({ query, variables }, beta.admin)],
  ['an API key', () => async (document, variables = {}) => {
    const register = 'mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { sha256 } }'
    const { data, errors } = await world.graphql<any>(register, { input: { document } }, beta.admin)
    expect(errors, document).toEqual([])
    return post({ documentId: data.registerPersistedOperation.sha256, variables }, { authorization: betaKey.authorization })
  }],
] // prettier-ignore

const snapshot = async (): Promise<string[]> =>
  Promise.all(
    Object.values(lists).map(async (query) =>
      // Looking is itself a use of the looker's own session.
      (await bytes(await post({ query }, alpha.admin))).replaceAll(/\\"lastUsedAt\\":(null|\\"[^"]*")/g, ''),
    ),
  )

describe('the rows of another organisation', () => {
  it('are there for its own administrator: every kind of node, so that not finding one means something', async () => {
    const node = schema.getType('Node')
    const types = isInterfaceType(node) ? schema.getPossibleTypes(node).map(({ name }) => name) : []
    expect(types.filter((type) => !victims.some(([known]) => known === type))).toEqual([])
    for (const [type, uuid] of victims.filter(([type]) => types.includes(type))) {
      const { data } = await world.graphql<any>('query ($id: ID!) { node(id: $id) { __typename id } }', { id: encodeNodeId(type, uuid) }, alpha.admin) // prettier-ignore
      expect(data?.node, type).toEqual({ __typename: type, id: encodeNodeId(type, uuid) })
    }
  })

  describe.each(doors)('asked for by %s of an administrator of another one', (_door, open) => {
    it.each(attacks.map((attack): [string, Attack] => [attack.name, attack]))('answer as rows that never were: %s', async (name, { takes, document, variables }) => {
      const send = open()
      const answerTo = async (value: string) => bytes(await send(document, variables(value)))
      if (takes === 'slug') {
        for (const [foreign, random] of [[slug, 'never-was-any'], [alpha.slug, alpha.slug.replace(/^./, 'z')]] as const)
          expect((await answerTo(foreign)).replaceAll(foreign, '?')).toBe((await answerTo(random)).replaceAll(random, '?')) // prettier-ignore
        return
      }
      const never = randomUUID()
      const answers = new Set([(await answerTo(never)).replaceAll(never, '?')])
      for (const [, uuid] of victims) answers.add((await answerTo(uuid)).replaceAll(uuid, '?'))
      // Whatever kind of row it was the id of, the answer is one and the same.
      expect([...answers], name).toHaveLength(1)
      for (const [type, uuid] of _door === 'a JWT' || name === 'node(id)' ? victims : []) {
        const [foreign, random] = [encodeNodeId(type, uuid), encodeNodeId(type, randomUUID())]
        const answer = (await answerTo(foreign)).replaceAll(foreign, '?')
        expect(answer, type).toBe((await answerTo(random)).replaceAll(random, '?'))
        answers.add(answer)
      }
      // One of the ways asks for a row of the right kind in the right form, and gets no further than that.
      expect([...answers].every((answer) => answer.includes('BAD_USER_INPUT')), name).toBe(false)
    }) // prettier-ignore

    it.each(Object.keys(lists))('are in no list: %s', async (name) => {
      const text = await (await open()(lists[name] ?? '')).text()
      const marks = [...victims.map(([, uuid]) => uuid), ...victims.map((victim) => encodeNodeId(...victim)), slug, alpha.slug, alpha.admin.email, 'Alpha', 'alpha', alphaDocument.sha256] // prettier-ignore
      expect(text).toContain('"data"')
      for (const mark of marks) expect(text.includes(mark), mark).toBe(false)
    })

    const paged = ['apiKeys', 'auditTrail', 'persistedOperations', 'requestLog', 'services', 'usage']
    it.each([...paged, 'organization.members', 'organization.services'])('are no place in a list: a cursor of %s', async (path) => {
      const [field, inner] = path.split('.')
      const within = (args: string, rest: string) => (inner ? `${field} { ${inner}${args} ${rest} }` : `${field}${args} ${rest}`)
      const { data } = await world.graphql<any>(`query { ${within('(first: 1)', '{ edges { cursor } }')} }`, {}, alpha.admin)
      const cursor = String((inner ? data[field ?? ''][inner] : data[field ?? '']).edges[0].cursor)
      const made = Buffer.from(cursor, 'base64').toString().replace(/[0-9a-f-]{36}/, randomUUID())
      const random = Buffer.from(made).toString('base64')
      expect(random).not.toBe(cursor)
      for (const [args, side] of [['first: 5, after', 'after'], ['last: 5, before', 'before']]) {
        const document = `query ($c: String) { ${within(`(${args}: $c)`, '{ edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage } }')} }`
        const [foreign, unknown] = [await open()(document, { c: cursor }), await open()(document, { c: random })]
        expect(await bytes(foreign), side).toBe(await bytes(unknown))
      }
    }) // prettier-ignore

    it('are no persisted operation of theirs, by hash or by id', async () => {
      const as = _door === 'a JWT' ? beta.admin : { authorization: betaKey.authorization }
      const pairs = [[alphaDocument.sha256, alphaDocument.sha256.replace(/^.{4}/, 'abcd')], [alphaDocument.id, encodeNodeId('PersistedOperation', randomUUID())]] as const // prettier-ignore
      for (const [foreign, random] of pairs)
        for (const body of [
          (id: string) => ({ documentId: id }),
          (id: string) => ({ extensions: { persistedQuery: { sha256Hash: id, version: 1 } } }),
        ]) {
          // prettier-ignore
          const answer = await bytes(await post(body(foreign), as))
          expect(answer).toContain('PERSISTED_QUERY_NOT_FOUND')
          expect(answer).toBe(await bytes(await post(body(random), as)))
        }
    })

    it('are no MCP endpoint of theirs', async () => {
      const as = _door === 'a JWT' ? beta.admin : { authorization: betaKey.authorization }
      const initialize = { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'x', version: '1' } } } // prettier-ignore
      const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream', authorization: as.authorization ?? '' } // prettier-ignore
      const at = async (organization: string, service: string) =>
        bytes(await world.fetch(`/mcp/${organization}/${service}`, { method: 'POST', headers, body: JSON.stringify(initialize) })) // prettier-ignore
      const nowhere = await at('never-was', 'never-was')
      expect(nowhere).toContain('NOT_FOUND')
      for (const [organization, service] of [
        [alpha.slug, slug],
        [alpha.slug, 'in-beta'],
        [beta.slug, slug],
        [alpha.slug, 'never-was'],
      ] as const)
        // prettier-ignore
        expect(await at(organization, service), `${organization}/${service}`).toBe(nowhere)
    })
  })

  it('keep no slug from anybody else', async () => {
    expect(await createService(world, beta.admin, { slug, endpoint: 'https://beta.example/mcp' })).toBeTruthy()
  })

  it('are not changed by all of this, and nothing of it is in their trail', async () => {
    expect(await snapshot()).toEqual(before)
    const log = await post({ documentId: alphaDocument.sha256 }, { authorization: alphaKey.authorization })
    expect(log.status).toBe(200)
  })
})
