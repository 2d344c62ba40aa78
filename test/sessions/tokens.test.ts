import { createHmac, randomUUID } from 'node:crypto'
import {
  createLocalJWKSet,
  exportJWK,
  generateKeyPair,
  importPKCS8,
  jwtVerify,
  SignJWT,
  type CryptoKey,
  type JWTPayload,
  type JSONWebKeySet,
  type JWTHeaderParameters,
} from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadConfig } from '../../src/config.ts'
import { system } from '../../src/kernel/actor.ts'
import { seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, origin, type World } from '../harness/world.ts'

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
const flip = (text: string, at: number): string => {
  const bytes = Buffer.from(text, 'base64url')
  const index = at < 0 ? bytes.length + at : at
  bytes[index] = (bytes[index] ?? 0) ^ 1
  return bytes.toString('base64url')
}

describe('an access token', () => {
  let world: World
  let org: Organization
  let other: Organization
  /** The platform's own key, so that each forgery is wrong in one thing alone. */
  let key: { kid: string; privateKey: CryptoKey; publicJwk: { n: string; e: string } }
  let claims: Record<string, unknown>
  let good: string
  let header: JWTHeaderParameters

  beforeAll(async () => {
    world = await createWorld()
    org = await seedOrganization(world)
    other = await seedOrganization(world)
    good = org.developer.authorization.replace('Bearer ', '')
    claims = JSON.parse(Buffer.from(good.split('.')[1] ?? '', 'base64url').toString()) as Record<string, unknown>
    const { database, vault } = world.platform
    const row = await database.read(system(), (tx) => tx.signingKey.findFirstOrThrow())
    const pem = vault.open('signingKey', [row.kid], row.sealedPrivate).reveal()
    key = {
      kid: row.kid,
      privateKey: await importPKCS8(pem, 'RS256'),
      publicJwk: row.publicJwk as { n: string; e: string },
    }
    header = { alg: 'RS256', typ: 'at+jwt', kid: key.kid }
  })
  afterAll(() => world.close())

  const ask = (token: string) => world.graphql('{ viewer { id scopes } }', {}, { authorization: `Bearer ${token}` })
  const sign = (change: Record<string, unknown> = {}, head: Partial<JWTHeaderParameters> = {}) =>
    new SignJWT({ ...claims, ...change }).setProtectedHeader({ ...header, ...head }).sign(key.privateKey)

  async function refused(token: string, code = 'UNAUTHENTICATED'): Promise<void> {
    const answer = await ask(token)
    expect([answer.status, answer.code]).toEqual([401, code])
    expect(answer.data ?? null).toBeNull()
    expect(answer.headers.get('www-authenticate')).toContain('Bearer')
  }

  it('is signed with RS256 by a key of the published set, with the standard claims of RFC 9068, for fifteen minutes', async () => {
    const keys = (await (await world.fetch('/.well-known/jwks.json')).json()) as JSONWebKeySet
    const expected = { issuer: origin, audience: origin, typ: 'at+jwt', algorithms: ['RS256'] }
    const { payload, protectedHeader } = await jwtVerify(good, createLocalJWKSet(keys), expected)
    expect(protectedHeader).toEqual(header)
    expect(payload).toMatchObject({ sub: org.developer.userId, org: org.id, role: 'DEVELOPER', client_id: origin })
    for (const name of ['iss', 'sub', 'aud', 'exp', 'iat', 'nbf', 'jti', 'sid', 'scope'])
      expect(payload).toHaveProperty(name)
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(900)
  })

  it('lives a day at the most: settings that ask for more are refused', () => {
    expect(() => loadConfig({ ACCESS_TOKEN_TTL_SECONDS: '86401' })).toThrow(/ACCESS_TOKEN_TTL_SECONDS/)
    expect(loadConfig({ ACCESS_TOKEN_TTL_SECONDS: '86400' }).accessTokenTtlSeconds).toBe(86_400)
  })

  it('signed by the platform is accepted, so each refusal below has one reason', async () => {
    expect((await ask(good)).errors).toEqual([])
    expect((await ask(await sign())).errors).toEqual([])
  })

  it.each(['none', 'None', 'NONE', 'nOnE'])('with the algorithm %s is refused, with and without a signature', async (alg) => {
    const [, payload, signature] = good.split('.')
    await refused(`${encode({ ...header, alg })}.${payload}.`)
    await refused(`${encode({ ...header, alg })}.${payload}.${signature}`)
  }) // prettier-ignore

  it('signed with HS256 under the public key is refused, in each form that the key has', async () => {
    const jwk = await world.fetch('/.well-known/jwks.json').then((response) => response.text())
    const pem = await importedPem()
    const input = `${encode({ ...header, alg: 'HS256' })}.${good.split('.')[1]}`
    for (const secret of [jwk, pem, `${pem}\n`, key.publicJwk.n, Buffer.from(key.publicJwk.n, 'base64url')])
      await refused(`${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`)
  })
  const importedPem = async (): Promise<string> => {
    const { createPublicKey } = await import('node:crypto')
    const jwk = { kty: 'RSA', n: key.publicJwk.n, e: key.publicJwk.e }
    return createPublicKey({ key: jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' }).toString().trim()
  }

  it.each(['RS384', 'RS512', 'PS256'])(
    'signed by the right key with another algorithm, %s, is refused',
    async (alg) => {
      const { database, vault } = world.platform
      const row = await database.read(system(), (tx) => tx.signingKey.findFirstOrThrow())
      const privateKey = await importPKCS8(vault.open('signingKey', [row.kid], row.sealedPrivate).reveal(), alg)
      await refused(await new SignJWT(claims).setProtectedHeader({ ...header, alg }).sign(privateKey))
    },
  )

  it.each(['../../etc/passwd', "' OR 1=1 --", '__proto__', 'x'.repeat(43), ''])(
    'naming the foreign key %j is refused',
    async (kid) => refused(await sign({}, { kid })),
  )

  it('naming no key is refused', async () => {
    await refused(await new SignJWT(claims).setProtectedHeader({ alg: 'RS256', typ: 'at+jwt' }).sign(key.privateKey))
  })

  it('bringing a key of its own (jwk, jku, x5u, x5c) is refused, and nothing is fetched', async () => {
    const { privateKey, publicKey } = await generateKeyPair('RS256', { extractable: true })
    const jwk = await exportJWK(publicKey)
    const evil = 'https://evil.example/keys.json'
    for (const extra of [{ jwk }, { jku: evil }, { x5u: evil }, { x5c: ['AAAA'] }, { jwk, jku: evil, x5u: evil }])
      for (const kid of [key.kid, 'attacker'])
        await refused(await new SignJWT(claims).setProtectedHeader({ ...header, ...extra, kid }).sign(privateKey))
  })

  it('with a critical header that is not understood is refused', async () => {
    await refused(`${encode({ ...header, crit: ['b64'], b64: false })}.${good.split('.').slice(1).join('.')}`)
  })

  it.each([
    ['another issuer', { iss: 'https://evil.example' }],
    ['the issuer with a slash more', { iss: `${origin}/` }],
    ['no issuer', { iss: undefined }],
    ['another audience', { aud: 'https://other.example' }],
    ['no audience', { aud: undefined }],
    ['no subject', { sub: undefined }],
    ['no session', { sid: undefined }],
    ['no id', { jti: undefined }],
    ['no expiry', { exp: undefined }],
    ['no beginning', { nbf: undefined }],
    ['an unknown role', { role: 'SUPERUSER' }],
    ['another session', { sid: randomUUID() }],
    ['another user', { sub: randomUUID() }],
  ])('with %s is refused', async (_what, change) => refused(await sign(change)))

  it.each(['JWT', 'jwt', 'id_token+jwt', 'rt+jwt', undefined])('of the type %s is refused: an id or refresh token is none', async (typ) => {
    await refused(await sign({}, { typ: typ as string }))
  }) // prettier-ignore

  it('that is an id token of this very issuer, signed with its key, is refused', async () => {
    const { sub, iat, nbf, exp, jti } = claims
    const idToken = { iss: origin, aud: 'a-client', azp: 'a-client', nonce: 'n', at_hash: 'x', sub, iat, nbf, exp, jti }
    for (const change of [{}, { aud: origin }, { ...claims, nonce: 'n' }])
      await refused(await new SignJWT({ ...idToken, ...change } as JWTPayload).setProtectedHeader({ ...header, typ: 'JWT' }).sign(key.privateKey)) // prettier-ignore
  })

  it('that is an opaque refresh token is refused', async () => {
    // eslint-disable-next-line no-secrets/no-secrets -- names a key that nobody made
    await refused('q4Yr1cV3TzL0m0hXcR8mQhI1c2wq3VtJc6dQn0m9x2E')
  })

  it('that expired is refused as expired, also when it was accepted before', async () => {
    const now = Math.floor(Date.now() / 1000)
    await refused(await sign({ iat: now - 1000, nbf: now - 1000, exp: now - 6 }), 'TOKEN_EXPIRED')
  })

  it('that is not yet valid is refused', async () => {
    const now = Math.floor(Date.now() / 1000)
    await refused(await sign({ nbf: now + 60 }))
    await refused(await sign({ iat: now + 60 }))
  })

  it('that was issued for longer than a day is refused after a day', async () => {
    const now = Math.floor(Date.now() / 1000)
    await refused(await sign({ iat: now - 86_500, nbf: now - 86_500, exp: now + 1000 }), 'TOKEN_EXPIRED')
  })

  it('that claims another organisation, or a higher role, is refused by the database', async () => {
    await refused(await sign({ org: other.id }))
    await refused(await sign({ role: 'ORG_ADMIN', scope: 'org:admin' }))
  })

  it('reads nothing of another organisation', async () => {
    const { data } = await world.graphql(
      '{ organization { id slug members { edges { node { id } } } } }',
      {},
      other.admin,
    )
    const { code, data: mine } = await world.graphql('query ($id: ID!) { node(id: $id) { id } }', { id: data['organization'].id }, org.admin) // prettier-ignore
    expect([code, mine?.['node'] ?? null]).toEqual(['NOT_FOUND', null])
  })

  it('never gains a scope by claiming it', async () => {
    const { data } = await ask(await sign({ scope: 'org:admin org:write mcp:read admin * ' }))
    expect(data['viewer'].scopes).toEqual(['mcp:read'])
  })

  it('truncated anywhere is refused', async () => {
    for (let length = 1; length < good.length; length += Math.ceil(good.length / 60))
      await refused(good.slice(0, length))
    await refused(good.slice(0, -1))
    await refused(`${good}.`)
  })

  it('with a flipped bit in any part is refused', async () => {
    const [head = '', payload = '', signature = ''] = good.split('.')
    for (const at of [0, 10, -1]) {
      await refused([flip(head, at), payload, signature].join('.'))
      await refused([head, flip(payload, at), signature].join('.'))
      await refused([head, payload, flip(signature, at)].join('.'))
    }
  })

  it('that is huge is refused quickly', async () => {
    // Of this process alone: a busy machine takes its time, but no work.
    const started = process.cpuUsage()
    await refused(`${good}${'A'.repeat(1_000_000)}`)
    await refused(`${'.'.repeat(1_000_000)}`)
    await refused(await sign({ padding: 'x'.repeat(5000) }))
    const { user, system: kernel } = process.cpuUsage(started)
    expect((user + kernel) / 1000).toBeLessThan(1000)
  })

  it('is never written to the log', () => {
    expect(world.logged.join('')).not.toContain(good.split('.')[2])
  })
})
