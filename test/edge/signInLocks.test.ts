import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { behindProxy, from, trail } from '../apiKeys/keys.ts'
import { counterStores, startRedis, type TestRedis } from '../harness/redis.ts'
import { addMember, password, seedOrganization, type Organization } from '../harness/seed.ts'
import { createTwin, createWorld, type World } from '../harness/world.ts'

const settings = {
  ...behindProxy,
  SIGN_IN_FAILURES_PER_SOURCE_AND_ACCOUNT: '5',
  SIGN_IN_FAILURES_PER_ACCOUNT: '12',
  SIGN_IN_FAILURES_PER_SOURCE: '40',
}
const home = '198.51.100.10'
const document = 'mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }'

// Each test's stranger has a network of its own.
let network = 0
const stranger = (): string => `203.0.113.${(network += 1)}`

const signIn = (world: World, ip: string, email: string, given = 'wrong horse battery staple') =>
  world.graphql<any>(document, { input: { email, password: given } }, from(ip))

async function codes(world: World, ip: string, email: string, n: number): Promise<(string | undefined)[]> {
  const all: (string | undefined)[] = []
  for (let i = 0; i < n; i += 1) all.push((await signIn(world, ip, email)).code)
  return all
}

let base: World
beforeAll(async () => void (base = await createWorld(behindProxy)))
afterAll(() => base.close())

describe.each(counterStores)('sign-in locks counted in %s', (store) => {
  let redis: TestRedis | null = null
  let world: World
  let org: Organization
  beforeAll(async () => {
    if (store === 'Redis') redis = await startRedis()
    world = await createTwin(base, { ...settings, ...redis?.settings })
    org = await seedOrganization(base)
  })
  afterAll(async () => {
    await world.close()
    await redis?.stop()
  })

  const six = [...Array<string>(6).fill('INVALID_CREDENTIALS'), 'ACCOUNT_LOCKED', 'ACCOUNT_LOCKED']

  it('lock after repeated failures, the same for an account that does not exist', async () => {
    const ip = stranger()
    expect(await codes(world, ip, org.viewer.email, 8)).toEqual(six)
    expect(await codes(world, ip, `nobody-${randomUUID()}@example.com`, 8)).toEqual(six)
    const known = await signIn(world, ip, org.viewer.email)
    expect(known.status).toBe(423)
    expect(Number(known.headers.get('retry-after'))).toBeGreaterThan(0)
    const unknown = await signIn(world, stranger(), `nobody-${randomUUID()}@example.com`)
    expect(unknown.errors[0]?.message).toBe('E-mail or password is wrong.')
  })

  it('hold against the right password too, so that a lock tells nothing about a guess', async () => {
    const ip = stranger()
    await codes(world, ip, org.developer.email, 6)
    expect((await signIn(world, ip, org.developer.email, password)).code).toBe('ACCOUNT_LOCKED')
  })

  it('never reach the owner: a session that stands works on, and a sign-in from the owner’s own address succeeds', async () => {
    expect((await signIn(world, home, org.colleague.email, password)).code).toBeUndefined()
    for (let i = 0; i < 20; i += 1) await signIn(world, stranger(), org.colleague.email)
    // Guesses from everywhere have gone past the account's ceiling: an address nobody has seen before must wait.
    expect((await signIn(world, stranger(), org.colleague.email, password)).code).toBe('ACCOUNT_LOCKED')
    expect((await signIn(world, home, org.colleague.email, password)).code).toBeUndefined()
    expect((await world.graphql('{ viewer { id } }', {}, org.colleague)).status).toBe(200)
  })

  it('count aliases of one request one by one', async () => {
    const ip = stranger()
    const aliases = Array.from({ length: 10 }, (_, i) => `a${i}: signIn(input: $input) { accessToken }`)
    const answer = await world.graphql<any>(
      `mutation ($input: SignInInput!) { ${aliases.join(' ')} }`,
      { input: { email: org.admin.email, password: 'wrong horse battery staple' } },
      from(ip),
    )
    const seen = answer.errors.map(({ extensions }) => extensions.code)
    expect(seen.filter((code) => code === 'INVALID_CREDENTIALS')).toHaveLength(6)
    expect(seen.filter((code) => code === 'ACCOUNT_LOCKED')).toHaveLength(4)
  })

  it('count requests that arrive at once one by one', async () => {
    const ip = stranger()
    const answers = await Promise.all(Array.from({ length: 30 }, () => signIn(world, ip, org.admin.email)))
    expect(answers.filter(({ code }) => code === 'INVALID_CREDENTIALS')).toHaveLength(6)
    expect(answers.filter(({ code }) => code === 'ACCOUNT_LOCKED')).toHaveLength(24)
  })

  it('slow a source that tries one password on many accounts, with 429', async () => {
    const ip = stranger()
    const seen: (string | undefined)[] = []
    for (let i = 0; i < 43; i += 1) seen.push((await signIn(world, ip, `victim-${i}@example.com`)).code)
    expect(seen.slice(0, 41)).toEqual(Array<string>(41).fill('INVALID_CREDENTIALS'))
    expect(seen.slice(41)).toEqual(['RATE_LIMITED', 'RATE_LIMITED'])
  })

  it('take one IPv6 network for one source', async () => {
    const email = `nobody-${randomUUID()}@example.com`
    for (let i = 1; i <= 6; i += 1) await signIn(world, `2001:db8:7:7::${i}`, email)
    expect((await signIn(world, '2001:db8:7:7:ffff::1', email)).code).toBe('ACCOUNT_LOCKED')
  })

  it('forget honest mistakes when the right password comes', async () => {
    const ip = stranger()
    const { email } = await addMember(world, org.id, 'VIEWER')
    for (let round = 0; round < 2; round += 1) {
      await codes(world, ip, email, 4)
      expect((await signIn(world, ip, email, password)).code).toBeUndefined()
    }
  })

  it('stand in the trail of the organisation when they begin, once', async () => {
    const before = (await trail(world, 'signIn.locked')).filter(({ userId }) => userId === org.viewer.userId)
    await codes(world, stranger(), org.viewer.email, 9)
    const after = (await trail(world, 'signIn.locked')).filter(
      ({ userId, detail }) =>
        userId === org.viewer.userId && (detail as { scope: string }).scope === 'source and account',
    )
    expect(after.length).toBe(
      before.filter(({ detail }) => (detail as { scope: string }).scope === 'source and account').length + 1,
    )
    expect(after.at(-1)).toMatchObject({ orgId: org.id, outcome: 'denied', detail: { seconds: 30 } })
  })
})

it('open by themselves, and grow with each further failure', async () => {
  const world = await createTwin(base, {
    ...behindProxy,
    SIGN_IN_FAILURES_PER_SOURCE_AND_ACCOUNT: '1',
    FIRST_LOCK_SECONDS: '1',
    LONGEST_LOCK_SECONDS: '2',
  })
  try {
    const org = await seedOrganization(world)
    const ip = stranger()
    await codes(world, ip, org.admin.email, 2)
    expect((await signIn(world, ip, org.admin.email, password)).headers.get('retry-after')).toBe('1')
    const attempt = async () => (await signIn(world, ip, org.admin.email)).code
    await expect.poll(attempt, { timeout: 5000 }).toBe('INVALID_CREDENTIALS')
    expect((await signIn(world, ip, org.admin.email, password)).headers.get('retry-after')).toBe('2')
    const right = async () => (await signIn(world, ip, org.admin.email, password)).code ?? 'signed in'
    await expect.poll(right, { timeout: 5000 }).toBe('signed in')
  } finally {
    await world.close()
  }
})
