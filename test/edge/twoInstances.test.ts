import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { encodeNodeId } from '../../src/kernel/nodeId.ts'
import { system } from '../../src/kernel/actor.ts'
import { behindProxy, call, from, makeKey, register, rotateKey, withAnotherSecret } from '../apiKeys/keys.ts'
import { startRecorder, type Recorder } from '../gateway/peers/recorder.ts'
import { ownStores, startRedis, type TestRedis } from '../harness/redis.ts'
import { addMember, createService, fresh, password, seedOrganization, type Organization, type Person } from '../harness/seed.ts' // prettier-ignore
import { createTwin, createWorld, type Answer, type Credential, type World } from '../harness/world.ts'
import { MfaClient, MovableClock } from '../sessions/mfaHarness.ts'

/**
 * Two instances on one database, each with its own caches; on PostgreSQL they share nothing else. What one does holds at the
 * other on its very next request. Revocation of keys and sessions under load is in revocation.test.ts, refresh tokens are in
 * sessions/refresh.test.ts, signing keys in sessions/rotation.test.ts, the counters themselves in kernel/throttle.test.ts.
 */
const viewer = 'query Viewer { viewer { id role } }'
const run = (world: World, name: string, input: object, as: Credential, selection = '{ __typename }'): Promise<Answer<any>> =>
  world.graphql(`mutation ($input: ${name[0]?.toUpperCase()}${name.slice(1)}Input!) { ${name}(input: $input) ${selection} }`, { input }, as) // prettier-ignore
const must = async (...of: Parameters<typeof run>): Promise<any> => {
  const { data, errors } = await run(...of)
  expect(errors).toEqual([])
  return data[of[1]]
}
const ask = (world: World, as: Credential) => world.graphql<any>(viewer, {}, as)
const seen = ({ status, code }: Answer<any>) => [status, code]

// The embedded database counts in memory, for it has one instance; beside a Redis even two on it count together.
const stores = [...(inject('databaseUrl') ? (['PostgreSQL'] as const) : []), ...ownStores]

describe.each(stores)('limits and locks counted in %s', (store) => {
  let redis: TestRedis | null = null
  let a: World
  let org: Organization
  let network = 0
  const stranger = (): string => `203.0.113.${(network += 1)}`
  beforeAll(async () => {
    const url = process.env['TEST_REDIS_URL']
    const given = { settings: { REDIS_URL: url ?? '', REDIS_KEY_PREFIX: `test-${randomUUID()}:` }, stop: async () => {} }
    if (store === 'Redis') redis = url ? given : await startRedis()
    a = await createWorld({ ...behindProxy, ...redis?.settings })
    org = await seedOrganization(a)
  })
  afterAll(async () => {
    await a.close()
    await redis?.stop()
  })

  /** Both instances, with limits that hold for this test. */
  const limited = async (settings: Record<string, string>, work: (one: World, two: World) => Promise<void>) => {
    const one = await createTwin(a, { ...behindProxy, ...redis?.settings, ...settings })
    const two = await createTwin(a, { ...behindProxy, ...redis?.settings, ...settings })
    try {
      await work(one, two)
    } finally {
      await two.close()
      await one.close()
    }
  }
  const spend = async (world: World, as: Credential): Promise<number> => {
    for (let n = 0; n < 500; n += 1) if ((await ask(world, as)).status === 429) return n
    return Number.POSITIVE_INFINITY
  }
  const refusal = async (world: World, as: Credential) => {
    const { status, headers, errors } = await ask(world, as)
    const after = Number(headers.get('retry-after'))
    return [status, after > 0 && after <= 60, (errors[0]?.extensions['limit'] as { policy: string } | undefined)?.policy]
  }

  it('what a credential spent at one is refused by the other, with 429 and Retry-After', async () => {
    await limited({ COST_PER_CREDENTIAL_PER_MINUTE: '30' }, async (one, two) => {
      const [spender, other] = [await addMember(a, org.id, 'VIEWER'), await addMember(a, org.id, 'VIEWER')]
      expect((await ask(two, spender)).status).toBe(200)
      expect(await spend(one, spender)).toBeLessThan(30)
      expect(await refusal(two, spender)).toEqual([429, true, 'credential'])
      expect((await ask(two, other)).status).toBe(200)
    })
  })

  it('a user’s budget and the organisation’s are one at both', async () => {
    const [own, other] = [await seedOrganization(a), await seedOrganization(a)]
    const settings = { COST_PER_USER_PER_MINUTE: '30', COST_PER_ORGANIZATION_PER_MINUTE: '45' }
    await limited(settings, async (one, two) => {
      await spend(one, own.viewer)
      const { accessToken } = await must(one, 'signIn', { email: own.viewer.email, password }, {}, '{ accessToken }')
      expect(await refusal(two, { authorization: `Bearer ${accessToken}` })).toEqual([429, true, 'user'])
      await spend(two, own.developer)
      expect(await refusal(one, own.colleague)).toEqual([429, true, 'organization'])
      expect((await ask(one, other.viewer)).status).toBe(200)
    })
  })

  it('strangers are counted by source at both together', async () => {
    await limited({ ANONYMOUS_REQUESTS_PER_SOURCE_PER_MINUTE: '20' }, async (one, two) => {
      const ip = stranger()
      const hello = async (world: World, at = ip) => (await world.graphql('{ __typename }', {}, from(at))).status
      for (let n = 0; n < 20; n += 1) expect(await hello(n % 2 ? one : two)).toBe(200)
      expect([await hello(one), await hello(two), await hello(two, stranger())]).toEqual([429, 429, 200])
    })
  })

  it('a key is held to the rate that its maker gave it', async () => {
    await limited({}, async (one, two) => {
      const documentId = await register(one, org.admin, viewer)
      const key = await makeKey(one, org.developer, { requestsPerMinute: 10 })
      const free = await makeKey(one, org.developer)
      const statuses: number[] = []
      for (let i = 0; i < 14; i += 1) statuses.push((await call(i % 2 ? two : one, documentId, key.secret)).status)
      expect(statuses).toEqual([...Array<number>(10).fill(200), ...Array<number>(4).fill(429)])
      expect((await call(two, documentId, free.secret)).status).toBe(200)
    })
  })

  it('a sign-in lock that begins at one holds at the other, and opens for both', async () => {
    const settings = { SIGN_IN_FAILURES_PER_SOURCE_AND_ACCOUNT: '1', FIRST_LOCK_SECONDS: '4', LONGEST_LOCK_SECONDS: '4' }
    await limited(settings, async (one, two) => {
      const ip = stranger()
      const { email } = await addMember(a, org.id, 'VIEWER')
      const signIn = (world: World, given: string) => run(world, 'signIn', { email, password: given }, from(ip))
      for (const world of [one, two]) expect((await signIn(world, 'wrong horse battery staple')).code).toBe('INVALID_CREDENTIALS')
      const locked = [await signIn(two, password), await signIn(one, password)]
      expect(locked.map(seen)).toEqual([[423, 'ACCOUNT_LOCKED'], [423, 'ACCOUNT_LOCKED']])
      for (const { headers } of locked) expect([1, 2, 3, 4]).toContain(Number(headers.get('retry-after')))
      const right = async (world: World) => (await signIn(world, password)).code ?? 'signed in'
      await expect.poll(() => right(two), { timeout: 15_000 }).toBe('signed in')
      expect(await right(one)).toBe('signed in')
    })
  })

  it('bad keys of one source lock it at both, and no other', async () => {
    await limited({ API_KEY_FAILURES_PER_SOURCE: '2' }, async (one, two) => {
      const ip = stranger()
      const documentId = await register(one, org.admin, viewer)
      for (const world of [one, two, one]) {
        const { secret } = await makeKey(one, org.developer)
        expect((await call(world, documentId, withAnotherSecret(secret), ip)).status).toBe(401)
      }
      const good = await makeKey(one, org.developer)
      for (const world of [one, two]) {
        expect(seen(await call(world, documentId, good.secret, ip))).toEqual([429, 'RATE_LIMITED'])
        expect((await call(world, documentId, (await makeKey(one, org.developer)).secret, stranger())).status).toBe(200)
      }
    })
  })
}) // prettier-ignore

describe('what happens at one instance', () => {
  let a: World
  let b: World
  let org: Organization
  let clock: MovableClock
  let documentId: string
  beforeAll(async () => {
    clock = new MovableClock()
    a = await createWorld({}, { clock: clock.now })
    b = await createTwin(a)
    org = await seedOrganization(a)
    documentId = await register(a, org.admin, viewer)
  })
  afterAll(async () => {
    await b.close()
    await a.close()
  })

  const admin = () => fresh(a, org.admin)
  const membershipOf = async ({ userId, orgId }: Person): Promise<string> => {
    const row = await a.platform.database.read(system(), (tx) => tx.membership.findFirstOrThrow({ where: { userId, orgId }, select: { id: true } }))
    return encodeNodeId('Membership', row.id)
  }
  /** A developer with a session and a key that both instances have in their caches. */
  const known = async () => {
    const person = await addMember(a, org.id, 'DEVELOPER')
    const key = await makeKey(a, person)
    for (const world of [a, b])
      for (let n = 0; n < 2; n += 1) expect([(await ask(world, person)).status, (await call(world, documentId, key.secret)).status]).toEqual([200, 200])
    return { person, key, id: await membershipOf(person) }
  }
  const both = () => [{ at: a, next: b }, { at: b, next: a }]

  it.each(['deactivateMember', 'removeMember'])('ends a member’s session and key at the other on the next request: %s', async (name) => {
    for (const { at, next } of both()) {
      const { person, key, id } = await known()
      await must(at, name, { id }, await admin())
      expect([seen(await ask(next, person)), seen(await call(next, documentId, key.secret))]).toEqual([[401, 'UNAUTHENTICATED'], [401, 'UNAUTHENTICATED']])
    }
  })

  it('gives a member another role at the other on the next request: the session of the old one ends, a key holds the new one', async () => {
    for (const { at, next } of both()) {
      const { person, key, id } = await known()
      await must(at, 'changeRole', { id, role: 'VIEWER' }, await admin())
      expect(seen(await ask(next, person))).toEqual([401, 'UNAUTHENTICATED'])
      expect((await call(next, documentId, key.secret)).data['viewer'].role).toBe('VIEWER')
    }
  })

  it('rotates a key for the other too: both secrets work while they overlap, and the old one ends at once without', async () => {
    for (const { at, next } of both()) {
      const { person, key } = await known()
      const second = await rotateKey(at, person, { id: key.id, overlapSeconds: 60 })
      expect([(await call(next, documentId, key.secret)).status, (await call(next, documentId, second.secret)).status]).toEqual([200, 200])
      const third = await rotateKey(at, person, { id: second.id, overlapSeconds: 0 })
      expect([(await call(next, documentId, second.secret)).status, (await call(next, documentId, third.secret)).status]).toEqual([401, 200])
    }
  })

  it('registers an operation that the other runs, and deletes it for the other', async () => {
    const { key } = await known()
    for (const { at, next } of both()) {
      const { id, sha256 } = await must(at, 'registerPersistedOperation', { document: `${viewer} # ${randomUUID()}` }, org.admin, '{ id sha256 }')
      for (const world of [next, at, next]) expect((await call(world, sha256, key.secret)).status).toBe(200)
      await must(at, 'deletePersistedOperation', { id }, org.admin)
      for (const world of [next, at]) expect(seen(await call(world, sha256, key.secret))).toEqual([404, 'PERSISTED_QUERY_NOT_FOUND'])
    }
  })

  it('ends a session for the streams of the other before they begin', async () => {
    const person = await addMember(a, org.id, 'ORG_ADMIN')
    await ask(b, person)
    expect((await a.graphql('mutation { signOut { sessionId } }', {}, person)).errors).toEqual([])
    const headers = { 'content-type': 'application/json', accept: 'text/event-stream', authorization: person.authorization }
    const response = await b.fetch('/graphql', { method: 'POST', headers, body: JSON.stringify({ query: 'subscription { calls { id } }' }) })
    expect(await response.text()).toContain('UNAUTHENTICATED')
  })

  describe('to a service', () => {
    let upstream: Recorder
    let slug: string
    let serviceId: string
    beforeAll(async () => {
      upstream = await startRecorder('modern')
      slug = `s-${randomUUID().slice(0, 8)}`
      serviceId = await createService(a, org.admin, { slug, endpoint: upstream.url, credentialMode: 'PERSONAL' })
    })
    afterAll(() => upstream.close())

    const whoami = (world: World, as: Credential) =>
      run(world, 'callTool', { service: slug, tool: 'whoami', arguments: { n: 1 } }, as, '{ content }')
    const token = async (world: World, as: Credential) => (await whoami(world, as)).data['callTool']?.content[0].text as string
    const store = (world: World, text: string) => must(world, 'storeServiceToken', { serviceId, token: text }, org.developer)

    it('is what the gateway of the other goes by at its next call: the token, then none', async () => {
      await store(a, 'token-zero')
      for (const world of [a, b]) expect(await token(world, org.developer)).toBe('Bearer token-zero#1')
      for (const [n, { at, next }] of both().entries()) {
        await store(at, `token-of-round-${n}`)
        expect(await token(next, org.developer)).toBe(`Bearer token-of-round-${n}#1`)
      }
      await must(a, 'deleteServiceToken', { serviceId }, org.developer)
      expect((await whoami(b, org.developer)).code).toBe('SERVICE_UNCONFIGURED')
    })

    it('is what the other permits: a tool that is blocked, a service that is off', async () => {
      await store(a, 'token-last')
      for (const world of [a, b]) expect((await whoami(world, org.developer)).errors).toEqual([])
      for (const { at, next } of both()) {
        await must(at, 'setToolAccess', { serviceId, tool: 'whoami', access: 'BLOCKED' }, await admin())
        expect((await whoami(next, org.developer)).code).not.toBeUndefined()
        await must(at, 'setToolAccess', { serviceId, tool: 'whoami', access: null }, await admin())
        expect((await whoami(next, org.developer)).errors).toEqual([])
        await must(at, 'updateService', { id: serviceId, enabled: false }, org.developer)
        expect((await whoami(next, org.developer)).code).toBe('NOT_FOUND')
        await must(at, 'updateService', { id: serviceId, enabled: true }, org.developer)
      }
    })
  })

  describe('to a second factor', () => {
    const clients = () => both().map(({ at, next }) => [new MfaClient(at, clock), new MfaClient(next, clock)] as const)
    const refused = 'INVALID_CREDENTIALS'

    it('uses up a code for the other, and of two at the same moment one passes', async () => {
      for (const [at, next] of clients()) {
        const { secret, person } = await at.enrolTotp(await addMember(a, org.id, 'ORG_ADMIN'))
        const used = at.nextCode(secret)
        expect((await at.stepUp(person, { method: 'TOTP', code: used })).errors).toEqual([])
        expect((await next.stepUp(person, { method: 'TOTP', code: used })).code).toBe(refused)
        const code = at.nextCode(secret)
        const raced = await Promise.all([at, next].map((client) => client.stepUp(person, { method: 'TOTP', code })))
        expect(raced.map((answer) => answer.code ?? 'passed').sort()).toEqual([refused, 'passed'])
      }
    })

    it('uses up a sign-in’s challenge, a recovery code and a passkey’s signature for the other', async () => {
      for (const [at, next] of clients()) {
        const person = await addMember(a, org.id, 'ORG_ADMIN')
        const { secret, recoveryCodes } = await at.enrolTotp(person)
        const { id } = await at.challenge(person.email)
        expect((await next.complete(id, { method: 'TOTP', code: at.nextCode(secret) })).errors).toEqual([])
        expect((await at.complete(id, { method: 'TOTP', code: at.nextCode(secret) })).code).toBe(refused)
        const recovery = { method: 'RECOVERY_CODE', code: recoveryCodes[0] }
        const [first, second] = [await at.challenge(person.email), await next.challenge(person.email)]
        expect((await at.complete(first.id, recovery)).errors).toEqual([])
        expect((await next.complete(second.id, recovery)).code).toBe(refused)

        const enrolled = await at.enrolPasskey(await addMember(a, org.id, 'ORG_ADMIN'))
        const { options } = await at.must('startPasskeyStepUp', null, 'options', enrolled.person)
        const assertion = enrolled.passkey.assert(options)
        expect((await next.stepUp(enrolled.person, { method: 'PASSKEY', assertion })).errors).toEqual([])
        expect((await at.stepUp(enrolled.person, { method: 'PASSKEY', assertion })).code).toBe(refused)
      }
    })

    it('counts wrong tries at both together', async () => {
      for (const [at, next] of clients()) {
        const { secret, person } = await at.enrolTotp(await addMember(a, org.id, 'ORG_ADMIN'))
        for (let n = 0; n < 5; n += 1) expect((await (n % 2 ? at : next).stepUp(person, { method: 'TOTP', code: '000000' })).code).toBe(refused)
        for (const client of [at, next]) expect((await client.stepUp(person, { method: 'TOTP', code: at.nextCode(secret) })).code).toBe('RATE_LIMITED')
      }
    })
  })
}) // prettier-ignore
