import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { behindProxy, from, makeKey } from '../apiKeys/keys.ts'
import { seedOrganization, type Organization } from '../harness/seed.ts'
import { createTwin, createWorld, type World } from '../harness/world.ts'

const neighbour = '203.0.113.50'
const viewer = 'query Viewer { viewer { id } }'

let base: World
beforeAll(async () => void (base = await createWorld(behindProxy)))
afterAll(() => base.close())

/** An instance with limits of its own, and an organisation that no other test has used any of. */
const worlds = async (settings: Record<string, string>): Promise<{ world: World; org: Organization }> => {
  const world = await createTwin(base, { ...behindProxy, ...settings })
  return { world, org: await seedOrganization(base) }
}

describe('requests without a good credential', () => {
  let world: World
  let org: Organization
  beforeAll(async () => void ({ world, org } = await worlds({ ANONYMOUS_REQUESTS_PER_SOURCE_PER_MINUTE: '20' })))
  afterAll(() => world.close())

  it('are counted by source and refused with 429, Retry-After and the RateLimit fields', async () => {
    for (let i = 0; i < 20; i += 1)
      expect((await world.graphql('{ __typename }', {}, from(neighbour))).status).toBe(200)
    const refused = await world.graphql('{ __typename }', {}, from(neighbour))
    expect([refused.status, refused.code]).toEqual([429, 'RATE_LIMITED'])
    expect(refused.headers.get('ratelimit-policy')).toBe('"source";q=20;w=60')
    expect(refused.headers.get('ratelimit')).toMatch(/^"source";r=0;t=[1-9]\d?$/)
    expect(Number(refused.headers.get('retry-after'))).toBeLessThanOrEqual(60)
    expect((await world.graphql('{ __typename }', {}, from('203.0.113.51'))).status).toBe(200)
  })

  it('never take a good credential of the same source with them', async () => {
    const as = from(neighbour, { authorization: org.viewer.authorization })
    expect((await world.graphql(viewer, {}, as)).status).toBe(200)
  })

  it('count when they present a bad one, so that guesses run dry', async () => {
    const guess = () => world.graphql(viewer, {}, from('203.0.113.52', { authorization: 'Bearer mcp_sk_guess' }))
    for (let i = 0; i < 20; i += 1) expect((await guess()).status).toBe(401)
    expect((await guess()).status).toBe(429)
  })

  it.each(['/graphql', '/mcp'])(
    'count at %s when a key that is known comes from outside its networks',
    async (door) => {
      const { secret } = await makeKey(world, org.developer, { allowedCidrs: ['198.51.100.0/24'] })
      const path = door === '/mcp' ? `/mcp/${org.slug}/absent` : door
      const ask = async (ip: string): Promise<number> => {
        const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json', 'x-forwarded-for': ip }
        return (await world.fetch(path, { method: 'POST', headers, body: '{"query":"{ __typename }"}' })).status
      }
      expect(await ask('198.51.100.7')).not.toBe(401)
      const elsewhere = door === '/mcp' ? '203.0.113.53' : '203.0.113.54'
      for (let i = 0; i < 20; i += 1) expect(await ask(elsewhere)).toBe(401)
      expect(await ask(elsewhere)).toBe(429)
    },
  )
})

describe('operations', () => {
  it('are charged by their exact cost to the credential, and the answer says what is left', async () => {
    const { world, org } = await worlds({ COST_PER_CREDENTIAL_PER_MINUTE: '100' })
    try {
      const first = await world.graphql<any>(viewer, {}, org.viewer)
      const { requested, remaining } = first.extensions.cost as unknown as { requested: number; remaining: number }
      expect(remaining).toBe(100 - requested)
      expect(first.headers.get('ratelimit')).toContain(`"credential";r=${100 - requested};t=`)
      expect(first.headers.get('ratelimit-policy')).toContain('"credential";q=100;w=60;qu="cost"')
      const dear = '{ services(first: 100) { edges { node { id } } } }'
      const refused = await world.graphql(dear, {}, org.viewer)
      expect([refused.status, refused.code]).toEqual([429, 'RATE_LIMITED'])
      expect((await world.graphql(viewer, {}, org.viewer)).status).toBe(200)
      expect((await world.graphql(viewer, {}, org.developer)).status).toBe(200)
    } finally {
      await world.close()
    }
  })

  it('are charged to the user over all credentials, and to the organisation over all users', async () => {
    const { world, org } = await worlds({ COST_PER_USER_PER_MINUTE: '40', COST_PER_ORGANIZATION_PER_MINUTE: '70' })
    try {
      const other = await seedOrganization(world)
      const until429 = async (as: { authorization: string }): Promise<string | null> => {
        for (let i = 0; i < 200; i += 1) {
          const { status, extensions, errors } = await world.graphql(viewer, {}, as)
          void extensions
          if (status === 429) return (errors[0]?.extensions['limit'] as { policy: string }).policy
        }
        return null
      }
      expect(await until429(org.viewer)).toBe('user')
      expect(await until429(org.developer)).toBe('organization')
      expect((await world.graphql(viewer, {}, org.colleague)).status).toBe(429)
      expect((await world.graphql(viewer, {}, other.viewer)).status).toBe(200)
    } finally {
      await world.close()
    }
  })
})

it('sign-ups are counted by source', async () => {
  // On a database of its own: instances that share one count together, and the seeds above were sign-ups too.
  const world = await createWorld({ ...behindProxy, SIGN_UPS_PER_SOURCE_PER_HOUR: '2' })
  try {
    await seedOrganization(world)
    await seedOrganization(world)
    await expect(seedOrganization(world)).rejects.toThrow('RATE_LIMITED')
  } finally {
    await world.close()
  }
})

it('the defaults are met by nobody who works: a thousand requests of one session in a row all pass', async () => {
  const { world, org } = await worlds({})
  try {
    const answers = await Promise.all(Array.from({ length: 1000 }, () => world.graphql(viewer, {}, org.viewer)))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
  } finally {
    await world.close()
  }
}, 90_000)
