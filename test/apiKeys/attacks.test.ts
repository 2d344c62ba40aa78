import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mintApiKey, parseApiKey } from '../../src/modules/apiKeys/format.ts'
import { keyUse } from '../../src/modules/apiKeys/keyUse.ts'
import { lastUse } from '../../src/modules/sessions/lastUse.ts'
import { createService, seedOrganization, type Organization } from '../harness/seed.ts'
import { asked, createWorld, type Answer, type World } from '../harness/world.ts'
import { behindProxy, call, from, makeKey, register, revokeKey, trail, withAnotherSecret, type Key } from './keys.ts'

let world: World
let org: Organization
let other: Organization
let documentId: string
let key: Key
beforeAll(async () => {
  world = await createWorld({ ...behindProxy, API_KEY_FAILURES_PER_SOURCE: '5' })
  org = await seedOrganization(world)
  other = await seedOrganization(world)
  documentId = await register(world, org.admin, 'query Services { services { edges { node { id slug } } } }')
  await createService(world, org.admin, { slug: 'ours', endpoint: 'https://upstream.example/mcp' })
  key = await makeKey(world, org.developer)
})
afterAll(() => world.close())

const refusal = ({ status, code, errors }: Answer<any>) => [status, code, errors[0]?.message]
const bad = [401, 'UNAUTHENTICATED', 'The API key is not valid.']
const made = (): string => mintApiKey().text.reveal()

describe('a key that is not whole', () => {
  it('costs no bcrypt and no statement, wherever it was cut or a bit was flipped', async () => {
    const broken = [
      ...Array.from({ length: key.secret.length - 7 }, (_, i) => key.secret.slice(0, i + 7)),
      ...Array.from(key.secret.slice(7), (character, i) => {
        const at = i + 7
        return key.secret.slice(0, at) + String.fromCharCode(character.charCodeAt(0) ^ 1) + key.secret.slice(at + 1)
      }),
      `${key.secret}0`,
      key.secret.toLowerCase(),
      key.secret.replace('mcp_sk_', 'mcp_pk_'),
    ]
    const hashed = world.platform.hasher.total
    // What earlier requests left to be noted is not these keys' doing.
    await lastUse(world.platform).flush()
    await keyUse(world.platform).flush()
    world.statements.length = 0
    for (const secret of broken) {
      const answer = await call(world, documentId, secret, '203.0.113.1')
      expect([secret.length, answer.status]).toEqual([secret.length, 401])
    }
    expect(world.platform.hasher.total).toBe(hashed)
    expect(asked(world)).toEqual([])
  })

  it.each([
    ['full-width letters', (text: string) => text.replace('mcp', 'ｍｃｐ')],
    ['a zero-width space', (text: string) => text.replace('_', '_\u200b')],
    ['a percent-encoded underscore', (text: string) => text.replace('_', '%5F')],
    ['a line break', (text: string) => `${text}\nx`],
    ['a second key behind a comma', (text: string) => `${text},${text}`],
  ])('is refused with %s', (_name, change) => {
    expect(parseApiKey(change(key.secret))).toBeNull()
  })
})

describe('a key that is whole and wrong', () => {
  it('is answered alike when it is made up, revoked, expired, or right by its id alone', async () => {
    const revoked = await makeKey(world, org.developer)
    await revokeKey(world, org.developer, { id: revoked.id })
    const expiring = await makeKey(world, org.developer, { expiresAt: new Date(Date.now() + 1000).toISOString() })
    await expect.poll(async () => (await call(world, documentId, expiring.secret)).status, { timeout: 5000 }).toBe(401)
    expect(refusal(await call(world, documentId, made(), '203.0.113.2'))).toEqual(bad)
    expect(refusal(await call(world, documentId, revoked.secret, '203.0.113.2'))).toEqual(bad)
    expect(refusal(await call(world, documentId, expiring.secret, '203.0.113.2'))).toEqual(bad)
  })

  it('costs one bcrypt however often it is repeated, so that a program with a dead key locks nobody out', async () => {
    const dead = made()
    const hashed = world.platform.hasher.total
    for (let i = 0; i < 50; i += 1) expect(refusal(await call(world, documentId, dead, '203.0.113.3'))).toEqual(bad)
    expect(world.platform.hasher.total).toBe(hashed + 1)
  })

  it('costs the same one bcrypt whether its id is made up, revoked or right, so that time tells nothing', async () => {
    const revoked = await makeKey(world, org.developer)
    await revokeKey(world, org.developer, { id: revoked.id })
    const cost = async (secret: string): Promise<number> => {
      const hashed = world.platform.hasher.total
      expect(refusal(await call(world, documentId, secret, '203.0.113.6'))).toEqual(bad)
      return world.platform.hasher.total - hashed
    }
    expect([await cost(made()), await cost(revoked.secret), await cost(withAnotherSecret(key.secret))]).toEqual([1, 1, 1]) // prettier-ignore
  })

  it('locks its source when many different ones come, in the trail, and never a key', async () => {
    await call(world, documentId, key.secret)
    const before = (await trail(world, 'apiKey.sourceLocked')).length
    const seen: number[] = []
    for (let i = 0; i < 8; i += 1) seen.push((await call(world, documentId, made(), '203.0.113.4')).status)
    expect(seen).toEqual([401, 401, 401, 401, 401, 401, 429, 429])
    expect(await trail(world, 'apiKey.sourceLocked')).toHaveLength(before + 1)
    expect((await call(world, documentId, key.secret, '198.51.100.1')).status).toBe(200)
    // A key that was seen before needs no guessing, so it works even from the locked source.
    expect((await call(world, documentId, key.secret, '203.0.113.4')).status).toBe(200)
  })

  it('counts guesses that come at once one by one', async () => {
    const answers = await Promise.all(Array.from({ length: 30 }, () => call(world, documentId, made(), '203.0.113.5')))
    expect(answers.filter(({ status }) => status === 401)).toHaveLength(6)
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(24)
  })
})

describe('a good key', () => {
  it('costs no bcrypt once it is warm', async () => {
    await call(world, documentId, key.secret)
    const hashed = world.platform.hasher.total
    for (let i = 0; i < 50; i += 1) expect((await call(world, documentId, key.secret)).status).toBe(200)
    expect(world.platform.hasher.total).toBe(hashed)
  })

  it('of another organisation sees nothing of this one', async () => {
    const theirs = await makeKey(world, other.admin)
    expect((await call(world, documentId, theirs.secret)).code).toBe('PERSISTED_QUERY_NOT_FOUND')
    const own = await register(world, other.admin, 'query Services { services { edges { node { id slug } } } }')
    expect((await call(world, own, theirs.secret)).data.services.edges).toEqual([])
    const mcp = await world.fetch(`/mcp/${org.slug}/ours`, { method: 'POST', headers: { 'x-api-key': theirs.secret } })
    expect(mcp.status).toBe(404)
  })

  it('is read from each of its three headers, and from two of them at once never', async () => {
    const send = (headers: object) => world.post<any>({ documentId }, { ...from('198.51.100.2'), ...headers })
    for (const headers of [
      { authorization: `Bearer ${key.secret}` },
      { authorization: `ApiKey ${key.secret}` },
      { 'x-api-key': key.secret },
    ])
      expect((await send(headers)).status).toBe(200)
    for (const headers of [
      { 'x-api-key': key.secret, authorization: org.admin.authorization },
      { 'x-api-key': `${key.secret}, ${key.secret}` },
      { 'x-api-key': `Bearer ${key.secret}` },
      { authorization: `Basic ${Buffer.from(`${key.secret}:`).toString('base64')}` },
      { authorization: key.secret },
    ])
      expect((await send(headers)).status).toBe(401)
    const inAddress = await world.post<any>({ documentId }, {})
    expect(inAddress.code).toBe('PERSISTED_QUERY_NOT_FOUND')
    expect((await world.fetch(`/graphql?documentId=${documentId}&apiKey=${key.secret}`)).status).toBe(404)
  })
})
