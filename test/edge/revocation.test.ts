import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { behindProxy, call, from, makeKey, register, revokeKey } from '../apiKeys/keys.ts'
import { password, seedOrganization, type Organization } from '../harness/seed.ts'
import { createTwin, createWorld, type Answer, type Credential, type World } from '../harness/world.ts'

/** Requests that are sent after a revocation was answered, for each kind of credential. `npm run race` sends ten thousand. */
const lateRequests = Number(process.env['RACE_REQUESTS'] ?? 160)
const workers = 16
const lateOfEach = 5

// Nothing but the revocation may refuse: a locked or exhausted source would prove less than a 401.
const unlimited = {
  ANONYMOUS_REQUESTS_PER_SOURCE_PER_MINUTE: '0',
  COST_PER_CREDENTIAL_PER_MINUTE: '0',
  COST_PER_USER_PER_MINUTE: '0',
  COST_PER_ORGANIZATION_PER_MINUTE: '0',
  API_KEY_FAILURES_PER_SOURCE: '100000',
  ACCESS_TOKEN_TTL_SECONDS: '86400',
}

let a: World
let b: World
let org: Organization
let documentId: string
beforeAll(async () => {
  a = await createWorld({ ...behindProxy, ...unlimited })
  b = await createTwin(a, { ...behindProxy, ...unlimited })
  org = await seedOrganization(a)
  documentId = await register(a, org.admin, 'query Viewer { viewer { id } }')
})
afterAll(async () => {
  await b.close()
  await a.close()
})

/** A credential that stands: how to use it at an instance, and how to end it through one. `status` is that of a good use. */
type Subject = { use: (world: World) => Promise<number>; end: (world: World) => Promise<Answer>; status: number }

async function key() {
  const { id, secret } = await makeKey(a, org.developer)
  const use = async (world: World, ip?: string) => (await call(world, documentId, secret, ip)).status
  return { secret, status: 200, use, end: (world: World) => revokeKey(world, org.developer, { id, reason: 'race' }) }
}

const atMcp = async (world: World, as: Credential): Promise<number> => {
  const init = { method: 'POST', headers: from('198.51.100.7', as) as Record<string, string>, body: '{}' }
  return (await world.fetch(`/mcp/${org.slug}/nothing`, init)).status
}

async function keyAtMcp(): Promise<Subject> {
  const { secret, end } = await key()
  return { status: 404, end, use: (world) => atMcp(world, { 'x-api-key': secret }) }
}

async function session(): Promise<Subject> {
  const { data } = await a.graphql<any>('mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }', {
    input: { email: org.viewer.email, password },
  })
  const as = { authorization: `Bearer ${data.signIn.accessToken}` }
  return {
    status: 200,
    use: async (world) => (await world.graphql('{ viewer { id } }', {}, as)).status,
    end: (world) => world.graphql('mutation { signOut { sessionId } }', {}, as),
  }
}

const kinds = [
  ['an API key', key],
  ['an API key at the MCP door', keyAtMcp],
  ['a session', session],
] as const

describe.each(kinds)('%s', (kind, make) => {
  it('that is revoked through one instance is refused by the other on its very next request', async () => {
    for (const [through, at] of [
      [a, b],
      [b, a],
    ] as const) {
      const { use, end, status } = await make()
      // Warm at both, so that whatever they remember of it is there to betray them.
      for (const world of [a, b]) expect(await use(world)).toBe(status)
      expect((await end(through)).errors).toEqual([])
      expect(await use(at)).toBe(401)
      expect(await use(through)).toBe(401)
    }
  })

  it(`slips through none of ${lateRequests} requests that race its revocation`, async () => {
    const late: number[] = []
    const early = new Set<number>()
    while (late.length < lateRequests) {
      const { use, end, status } = await make()
      for (const world of [a, b]) await use(world)
      let ended = false
      const load = Array.from({ length: workers }, async (_, i) => {
        for (let n = 0; n < lateOfEach;) {
          const sentAfterwards = ended
          const got = await use(i % 2 ? a : b)
          if (sentAfterwards) n = late.push(got) && n + 1
          else early.add(got === status ? 200 : got)
          // In one process with the embedded database nothing else would let other events in.
          await new Promise(setImmediate)
        }
      })
      const { errors } = await end(late.length % 2 ? a : b)
      ended = true
      await Promise.all(load)
      expect(errors).toEqual([])
    }
    const slipped = late.filter((got) => got !== 401)
    process.stderr.write(`${kind}: ${slipped.length} of ${late.length} requests slipped through the race\n`)
    expect(new Set(slipped)).toEqual(new Set())
    expect([...early].every((got) => got === 200 || got === 401)).toBe(true)
  }, 1_800_000)
})

it('repeated a hundred times at once, a dead key is one bad secret: its source may go on', async () => {
  const strict = await createTwin(a, { ...behindProxy, ...unlimited, API_KEY_FAILURES_PER_SOURCE: '2' })
  try {
    const dead = await key()
    await dead.use(strict)
    await dead.end(a)
    const hashed = strict.platform.hasher.total
    expect(new Set(await Promise.all(Array.from({ length: 100 }, () => dead.use(strict, '203.0.113.77'))))).toEqual(new Set([401])) // prettier-ignore
    expect(strict.platform.hasher.total).toBe(hashed + 1)
    // A key that this instance has never seen is verified from the same address.
    expect(await (await key()).use(strict, '203.0.113.77')).toBe(200)
  } finally {
    await strict.close()
  }
})
