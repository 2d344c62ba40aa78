import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import { lastUse } from '../../src/modules/sessions/lastUse.ts'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { addMember, createKey, password, seedOrganization, type Organization, type Person } from '../harness/seed.ts'
import { createTwin, createWorld, readAnswer, type World } from '../harness/world.ts'

const listText =
  '{ viewer { sessions(first: 20) { edges { node { id userAgent ip createdAt lastUsedAt expiresAt current } } } } }'
const endText = 'mutation ($input: EndSessionInput!) { endSession(input: $input) { id } }'
const signInText = 'mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }'

describe('the sessions of a person', () => {
  let database: TestDatabase
  let one: World
  let two: World
  let org: Organization
  let now = new Date()
  beforeAll(async () => {
    database = await createDatabase()
    one = await createWorld({}, { database, clock: () => now })
    two = await createTwin(one)
    org = await seedOrganization(one)
  })
  afterAll(async () => {
    await two.close()
    await one.close()
    await database.drop()
  })

  async function signIn(email: string, userAgent = 'Phone/1.0') {
    const response = await one.fetch('/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'user-agent': userAgent },
      body: JSON.stringify({ query: signInText, variables: { input: { email, password } } }),
    })
    const { data } = await readAnswer<any>(response)
    return { authorization: `Bearer ${data.signIn.accessToken}` }
  }
  const list = async (as: { authorization: string }): Promise<any[]> =>
    (await one.graphql(listText, {}, as)).data['viewer'].sessions.edges.map(({ node }: any) => node)
  const stands = async (as: { authorization: string }, world = two) =>
    (await world.graphql('{ viewer { id } }', {}, as)).code === undefined

  it('are listed with device, address, times and which one is current', async () => {
    const person = await addMember(one, org.id, 'VIEWER')
    await signIn(person.email, 'Phone/1.0')
    const [phone, first] = await list(person)
    expect(phone).toMatchObject({ userAgent: 'Phone/1.0', ip: '192.0.2.1', current: false })
    expect(first).toMatchObject({ current: true })
    expect(await list(person)).toHaveLength(2)
  })

  it('are nobody else’s to see or end, not even an administrator’s', async () => {
    const person = await addMember(one, org.id, 'VIEWER')
    const [session] = await list(person)
    for (const stranger of [org.admin, org.colleague]) {
      expect((await list(stranger)).map(({ id }) => id)).not.toContain(session.id)
      expect((await one.graphql(endText, { input: { id: session.id } }, stranger)).code).toBe('NOT_FOUND')
    }
    expect(await stands(person)).toBe(true)
  })

  it('are not an API key’s to see or end', async () => {
    const key = await createKey(one, org.developer, ['user:read', 'user:write'])
    const run = async (document: string, variables = {}) => {
      const { data } = await one.graphql('mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { sha256 } }', { input: { document } }, org.developer) // prettier-ignore
      return one.post({ documentId: data['registerPersistedOperation'].sha256, variables }, key)
    }
    const [session] = await list(org.developer)
    expect((await run(listText)).code).toBe('FORBIDDEN')
    expect((await run(endText, { input: { id: session.id } })).code).toBe('FORBIDDEN')
    expect((await run('mutation { endOtherSessions { count } }')).code).toBe('FORBIDDEN')
    expect(await stands(org.developer)).toBe(true)
  })

  it('end one by one, on the next request of every instance', async () => {
    const person = await addMember(one, org.id, 'VIEWER')
    const phone = await signIn(person.email)
    expect(await stands(phone)).toBe(true)
    const { id } = (await list(person)).find(({ current }) => !current)
    expect((await one.graphql(endText, { input: { id } }, person)).data['endSession']).toEqual({ id })
    expect(await stands(phone)).toBe(false)
    expect(await stands(person)).toBe(true)
    expect((await one.graphql(endText, { input: { id } }, person)).code).toBe('NOT_FOUND')
    expect(await list(person)).toHaveLength(1)
  })

  it('end all but this one, in every organisation', async () => {
    const person = await addMember(one, org.id, 'VIEWER')
    const other = await seedOrganization(one)
    await one.platform.database.transact(system(), (tx) =>
      tx.membership.create({ data: { orgId: other.id, userId: person.userId, role: 'VIEWER' }, select: { id: true } }),
    )
    const elsewhere = await one.graphql(signInText, { input: { email: person.email, password, organization: other.slug } }) // prettier-ignore
    const there = { authorization: `Bearer ${elsewhere.data['signIn'].accessToken}` }
    const phone = await signIn(person.email)
    expect(await list(person)).toHaveLength(3)
    const { data } = await one.graphql('mutation { endOtherSessions { count } }', {}, person)
    expect(data['endOtherSessions']).toEqual({ count: 2 })
    expect([await stands(there), await stands(phone), await stands(person)]).toEqual([false, false, true])
  })

  it('lets no request slip through while a session is ended', async () => {
    const person = await addMember(one, org.id, 'VIEWER')
    const phone = await signIn(person.email)
    const { id } = (await list(person)).find(({ current }) => !current)
    let ended = false
    const late: boolean[] = []
    const load = Array.from({ length: 8 }, async (_, i) => {
      for (let n = 0; n < 25; n += 1) {
        const after = ended
        const stood = await stands(phone, i % 2 ? one : two)
        if (after) late.push(stood)
      }
    })
    await one.graphql(endText, { input: { id } }, person)
    ended = true
    await Promise.all(load)
    expect(late.length).toBeGreaterThan(0)
    expect(late.filter(Boolean)).toEqual([])
  })

  it('note their last use, at most once a minute', async () => {
    const person: Person = await addMember(one, org.id, 'VIEWER')
    const id = String(decodeJwt(person.authorization.slice(7))['sid'])
    const written = async () => {
      await lastUse(one.platform).flush()
      const session = await one.platform.database.read(system(), (tx) =>
        tx.session.findUniqueOrThrow({ where: { id } }),
      )
      return session.lastUsedAt?.getTime()
    }
    const start = now.getTime()
    await list(person)
    expect(await written()).toBe(start)
    now = new Date(start + 30_000)
    await list(person)
    expect(await written()).toBe(start)
    now = new Date(start + 61_000)
    await list(person)
    expect(await written()).toBe(start + 61_000)
    now = new Date()
  })
})
