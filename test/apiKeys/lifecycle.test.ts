import type { GraphQLObjectType } from 'graphql'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startDemo, type Demo } from '../../src/demo/demo.ts'
import { buildSchema } from '../../src/schema.ts'
import { createService, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'
import {
  behindProxy,
  call,
  from,
  makeKey,
  register,
  revokeKey,
  rotateKey,
  trail,
  tryToMake,
  tryToRotate,
} from './keys.ts'

const office = '198.51.100.7'
const elsewhere = '203.0.113.9'
const lists = 'query Services { services(first: 50) { edges { node { id slug } } } }'

let world: World
let org: Organization
let other: Organization
let demo: Demo
let listServices: string
let service: Record<'first' | 'second', string>
beforeAll(async () => {
  demo = await startDemo()
  world = await createWorld(behindProxy)
  org = await seedOrganization(world)
  other = await seedOrganization(world)
  listServices = await register(world, org.admin, lists)
  const make = (slug: string) => createService(world, org.admin, { slug, endpoint: `${demo.origin}/mcp` })
  service = { first: await make('first'), second: await make('second') }
})
afterAll(async () => {
  await world.close()
  await demo.close()
})

const slugs = (answer: Awaited<ReturnType<typeof call>>): string[] =>
  answer.data.services.edges.map(({ node }: { node: { slug: string } }) => node.slug)

const initialize = (slug: string, secret: string, ip = office) =>
  world.fetch(`/mcp/${org.slug}/${slug}`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${secret}`,
      'x-forwarded-for': ip,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
    },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'initialize',
      params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'test', version: '1' } },
    }),
  })

describe('a key with networks of its own', () => {
  it('works from them and is refused from anywhere else, like a key that does not exist', async () => {
    const key = await makeKey(world, org.developer, { allowedCidrs: ['198.51.100.0/24', '2001:db8::/32'] })
    expect((await call(world, listServices, key.secret, office)).status).toBe(200)
    expect((await call(world, listServices, key.secret, '2001:db8:5::1')).status).toBe(200)
    const refused = await call(world, listServices, key.secret, elsewhere)
    expect([refused.status, refused.code]).toEqual([401, 'UNAUTHENTICATED'])
    expect(refused.errors[0]?.message).toBe('The API key is not valid.')
    expect((await initialize('first', key.secret, elsewhere)).status).toBe(401)
  })

  it('believes no address that a stranger wrote in front of the trusted proxy’s', async () => {
    const key = await makeKey(world, org.developer, { allowedCidrs: ['198.51.100.0/24'] })
    const refused = await call(world, listServices, key.secret, `${office}, ${elsewhere}`)
    expect(refused.status).toBe(401)
  })

  it.each(['10.0.0.0/33', 'everywhere', '010.0.0.0/8', '::ffff:10.0.0.0/104', '10.0.0.0/8/8', ''])(
    'is not made with %j',
    async (cidr) => {
      const answer = await tryToMake(world, org.developer, { allowedCidrs: [cidr] })
      expect(answer.code).toBe('BAD_USER_INPUT')
    },
  )
})

describe('a key for some services', () => {
  it('lists, reads and calls those and no other, in GraphQL and in MCP', async () => {
    const key = await makeKey(world, org.developer, { allowedServices: [service.first] })
    const bySlug = await register(world, org.admin, 'query One($slug: String!) { service(slug: $slug) { id } }')
    const byId = await register(world, org.admin, 'query Node($id: ID!) { node(id: $id) { id } }')
    expect(slugs(await call(world, listServices, key.secret))).toEqual(['first'])
    expect((await call(world, bySlug, key.secret, office, { slug: 'second' })).data.service).toBeNull()
    expect((await call(world, byId, key.secret, office, { id: service.second })).data.node).toBeNull()
    expect((await call(world, byId, key.secret, office, { id: service.first })).data.node.id).toBe(service.first)
    expect((await initialize('first', key.secret)).status).toBe(200)
    const refused = await initialize('second', key.secret)
    expect(refused.status).toBe(404)
    await refused.body?.cancel()
  })

  it('cannot be made for a service of another organisation', async () => {
    const foreign = await createService(world, other.admin, { slug: 'theirs', endpoint: `${demo.origin}/mcp` })
    expect((await tryToMake(world, org.developer, { allowedServices: [foreign] })).code).toBe('NOT_FOUND')
  })

  it('stays for those when one of them is deleted: none is not all', async () => {
    const doomed = await createService(world, org.admin, { slug: 'doomed', endpoint: `${demo.origin}/mcp` })
    const key = await makeKey(world, org.developer, { allowedServices: [doomed] })
    await world.platform.database.transact(
      { kind: 'system', origin: { ip: null, userAgent: null, requestId: 'test' }, permissions: 0, scopes: [] },
      (tx) => tx.$executeRaw`UPDATE services SET enabled = false WHERE slug = 'doomed'`,
    )
    expect(slugs(await call(world, listServices, key.secret))).toEqual(['doomed'])
  })
})

describe('a key that makes keys', () => {
  const limits = { scopes: ['user:token', 'mcp:read'], allowedCidrs: ['198.51.100.0/24'], requestsPerMinute: 100 }
  const creates = 'mutation Make($input: CreateApiKeyInput!) { createApiKey(input: $input) { apiKey { id } secret } }'

  it('gives its own limits to what it makes, and nothing past them', async () => {
    const make = await register(world, org.admin, creates)
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString()
    const maker = await makeKey(world, org.developer, { ...limits, allowedServices: [service.first], expiresAt })
    const tryIt = (input: object) =>
      call(world, make, maker.secret, office, { input: { name: 'child', scopes: ['mcp:read'], ...input } })
    for (const past of [
      { scopes: ['mcp:write'] },
      { allowedCidrs: ['198.51.0.0/16'] },
      { allowedCidrs: ['2001:db8::/32'] },
      { requestsPerMinute: 101 },
      { expiresAt: new Date(Date.now() + 7_200_000).toISOString() },
    ])
      expect([past, (await tryIt(past)).code]).toEqual([past, 'FORBIDDEN'])
    expect((await tryIt({ allowedServices: [service.second] })).code).toBe('NOT_FOUND')
    const { secret } = (await tryIt({})).data.createApiKey
    expect(slugs(await call(world, listServices, secret))).toEqual(['first'])
    expect((await call(world, listServices, secret, elsewhere)).status).toBe(401)
  })

  it('takes what it made with it when it is revoked', async () => {
    const make = await register(world, org.admin, creates)
    const maker = await makeKey(world, org.developer, { scopes: ['user:token', 'mcp:read'] })
    const child = (await call(world, make, maker.secret, office, { input: { name: 'child', scopes: ['mcp:read'] } }))
      .data.createApiKey
    expect((await call(world, listServices, child.secret)).status).toBe(200)
    await revokeKey(world, org.developer, { id: maker.id })
    expect((await call(world, listServices, child.secret)).status).toBe(401)
  })

  it('rotates itself and no other', async () => {
    const rotate = await register(
      world,
      org.admin,
      'mutation Rotate($input: RotateApiKeyInput!) { rotateApiKey(input: $input) { apiKey { id } secret } }',
    )
    const key = await makeKey(world, org.developer, { scopes: ['user:token', 'mcp:read'] })
    const stronger = await makeKey(world, org.developer, { scopes: ['mcp:write'] })
    const one = (id: string) => call(world, rotate, key.secret, office, { input: { id, overlapSeconds: 60 } })
    expect((await one(stronger.id)).code).toBe('FORBIDDEN')
    const next = (await one(key.id)).data.rotateApiKey
    expect((await call(world, listServices, next.secret)).status).toBe(200)
    // Whoever stole the first key and rotated it keeps nothing when its owner revokes the first.
    await revokeKey(world, org.developer, { id: key.id })
    expect((await call(world, listServices, next.secret)).status).toBe(401)
  })
})

describe('rotation', () => {
  it('gives a new secret with the same rights, while the old one works until the overlap ends', async () => {
    const key = await makeKey(world, org.developer, {
      allowedServices: [service.first],
      allowedCidrs: [`${office}/32`],
    })
    const next = await rotateKey(world, org.developer, { id: key.id, overlapSeconds: 2 })
    expect(next.secret).not.toBe(key.secret)
    expect(slugs(await call(world, listServices, key.secret))).toEqual(['first'])
    expect(slugs(await call(world, listServices, next.secret))).toEqual(['first'])
    expect((await call(world, listServices, next.secret, elsewhere)).status).toBe(401)
    await expect.poll(async () => (await call(world, listServices, key.secret)).status, { timeout: 8000 }).toBe(401)
    expect((await call(world, listServices, next.secret)).status).toBe(200)
  })

  it('ends the old secret at once without an overlap, and refuses its reuse', async () => {
    const key = await makeKey(world, org.developer)
    const next = await rotateKey(world, org.developer, { id: key.id, overlapSeconds: 0 })
    expect((await call(world, listServices, key.secret)).code).toBe('UNAUTHENTICATED')
    expect((await call(world, listServices, next.secret)).status).toBe(200)
  })

  it('happens once for a key, even when two ask at the same moment', async () => {
    const key = await makeKey(world, org.developer)
    const answers = await Promise.all(
      [60, 60].map((overlapSeconds) => tryToRotate(world, org.developer, { id: key.id, overlapSeconds })),
    )
    expect(answers.filter(({ data }) => data?.rotateApiKey)).toHaveLength(1)
    expect(answers.filter(({ code }) => code === 'CONFLICT')).toHaveLength(1)
  })

  it('never gives a key a longer life, an overlap past seven days, or a colleague’s key', async () => {
    const expiresAt = new Date(Date.now() + 60_000).toISOString()
    const key = await makeKey(world, org.developer, { expiresAt })
    expect((await tryToRotate(world, org.developer, { id: key.id, overlapSeconds: 604_801 })).code).toBe(
      'BAD_USER_INPUT',
    )
    expect((await tryToRotate(world, org.colleague, { id: key.id, overlapSeconds: 60 })).code).toBe('NOT_FOUND')
    expect((await tryToRotate(world, org.admin, { id: key.id, overlapSeconds: 60 })).code).toBe('NOT_FOUND')
    expect((await tryToRotate(world, other.admin, { id: key.id, overlapSeconds: 60 })).code).toBe('NOT_FOUND')
    const next = await rotateKey(world, org.developer, { id: key.id, overlapSeconds: 604_800 })
    const { data } = await world.graphql<any>(
      'query ($id: ID!) { node(id: $id) { ... on ApiKey { expiresAt } } }',
      { id: next.id },
      org.developer,
    )
    expect(data.node.expiresAt).toBe(expiresAt)
    const again = await world.graphql<any>(
      'query ($id: ID!) { node(id: $id) { ... on ApiKey { expiresAt replacedBy } } }',
      { id: key.id },
      org.developer,
    )
    expect(again.data.node).toEqual({ expiresAt, replacedBy: next.id })
  })

  it('fails no request while it happens', async () => {
    let key = await makeKey(world, org.developer)
    const statuses: number[] = []
    let done = false
    const load = Promise.all(
      [1, 2, 3, 4].map(async () => {
        // In one process with the embedded database nothing else would let other events in.
        for (; !done; await new Promise(setImmediate))
          statuses.push((await call(world, listServices, key.secret)).status)
      }),
    )
    try {
      for (let i = 0; i < 5; i += 1) key = await rotateKey(world, org.developer, { id: key.id, overlapSeconds: 60 })
    } finally {
      done = true
      await load
    }
    expect(statuses.length).toBeGreaterThan(5)
    expect(new Set(statuses)).toEqual(new Set([200]))
  })
})

describe('the record of a key', () => {
  it('says who made, rotated and revoked it, and why, and never the secret', async () => {
    const key = await makeKey(world, org.developer, { requestsPerMinute: 50 })
    const next = await rotateKey(world, org.developer, { id: key.id, overlapSeconds: 60 })
    const revoked = await revokeKey(world, org.developer, { id: next.id, reason: 'laptop lost' })
    expect(revoked.data.revokeApiKey.revokedReason).toBe('laptop lost')
    // The key that was replaced ends with the one that replaced it.
    expect((await call(world, listServices, key.secret)).status).toBe(401)
    const events = [
      ...(await trail(world, 'apiKey.created')),
      ...(await trail(world, 'apiKey.rotated')),
      ...(await trail(world, 'apiKey.revoked')),
    ]
    expect(events.at(-1)?.detail).toMatchObject({ reason: 'laptop lost' })
    expect((events.at(-1)?.detail as { ended: string[] }).ended).toHaveLength(2)
    expect(
      JSON.stringify(events, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value)),
    ).not.toMatch(/mcp_sk_|\$2b\$/)
  })

  it('shows the secret once: no later answer, trail or log line holds it', async () => {
    const key = await makeKey(world, org.developer)
    await call(world, listServices, key.secret)
    const secret = key.secret.slice(-49, -6)
    const fields = Object.keys((buildSchema().getType('ApiKey') as GraphQLObjectType).getFields())
    const scalar = fields.filter((name) => name !== 'owner')
    const answer = await world.graphql(`query ($id: ID!) { node(id: $id) { ... on ApiKey { ${scalar.join(' ')} } } }`, { id: key.id }, org.developer) // prettier-ignore
    expect(answer.errors).toEqual([])
    for (const text of [JSON.stringify(answer.data), world.logged.join('')]) expect(text).not.toContain(secret)
  })

  it('keeps a revocation as it was first', async () => {
    const key = await makeKey(world, org.developer)
    await revokeKey(world, org.developer, { id: key.id, reason: 'first' })
    const again = await revokeKey(world, org.admin, { id: key.id, reason: 'second' })
    expect(again.data.revokeApiKey.revokedReason).toBe('first')
  })

  it('notes the last use, at most once a minute', async () => {
    const key = await makeKey(world, org.developer)
    const lastUse = async () =>
      (
        await world.graphql<any>(
          'query ($id: ID!) { node(id: $id) { ... on ApiKey { lastUsedAt } } }',
          { id: key.id },
          org.developer,
        )
      ).data.node.lastUsedAt as string | null
    expect(await lastUse()).toBeNull()
    await call(world, listServices, key.secret)
    await expect.poll(lastUse, { timeout: 8000 }).not.toBeNull()
    world.statements.length = 0
    for (let i = 0; i < 20; i += 1) await call(world, listServices, key.secret)
    expect(world.statements.filter((text) => text.includes('UPDATE api_keys SET last_used_at'))).toEqual([])
  })
})

describe('a role that is lowered', () => {
  it('lowers the keys of its holder on their next request', async () => {
    const key = await makeKey(world, org.colleague, { scopes: ['mcp:read', 'mcp:write'] })
    const scopes = await register(world, org.admin, 'query Scopes { viewer { scopes } }')
    expect((await call(world, scopes, key.secret)).data.viewer.scopes).toEqual(['mcp:read', 'mcp:write'])
    await world.platform.database.transact(
      { kind: 'system', origin: { ip: null, userAgent: null, requestId: 'test' }, permissions: 0, scopes: [] },
      (tx) => tx.$executeRaw`UPDATE memberships SET role = 'VIEWER' WHERE user_id = ${org.colleague.userId}::uuid`,
    )
    expect((await call(world, scopes, key.secret)).data.viewer.scopes).toEqual(['mcp:read'])
  })
})

it('sends one credential from one place: a header beside it changes nothing', async () => {
  const key = await makeKey(world, org.developer, { allowedCidrs: [`${office}/32`] })
  const answer = await world.post<any>({ documentId: listServices }, {
    ...from(elsewhere, { authorization: `Bearer ${key.secret}` }),
    'x-real-ip': office,
    forwarded: `for=${office}`,
  } as object)
  expect(answer.status).toBe(401)
})
