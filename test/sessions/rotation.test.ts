import { decodeJwt, decodeProtectedHeader } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { anonymous, member, system } from '../../src/kernel/actor.ts'
import { scopes } from '../../src/kernel/permissions.ts'
import { signingKeyRotation, rotateSigningKey } from '../../src/modules/sessions/rotation.ts'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { cli } from '../harness/process.ts'
import { password, seedOrganization, type Organization, type Person } from '../harness/seed.ts'
import { createTwin, createWorld, type World } from '../harness/world.ts'

const who = '{ viewer { id } }'
const signInText = 'mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }'

const jwks = async (world: World) => {
  const response = await world.fetch('/.well-known/jwks.json')
  const { keys } = (await response.json()) as { keys: Record<string, string>[] }
  return { response, keys, kids: keys.map(({ kid }) => kid) }
}
const kidOf = ({ authorization }: { authorization: string }) =>
  decodeProtectedHeader(authorization.replace('Bearer ', '')).kid
/** Who a person is to the database, by the session of their token. */
const person = ({ authorization, userId, orgId, role }: Person) => ({
  ...{ userId, orgId, role, credentialId: String(decodeJwt(authorization.slice('Bearer '.length))['sid']) },
  origin: { ip: null, userAgent: null, requestId: 'test' },
})

describe('rotation of the signing key', () => {
  let database: TestDatabase
  let one: World
  let two: World
  let org: Organization
  let now = new Date()
  beforeAll(async () => {
    database = await createDatabase()
    one = await createWorld({ ACCESS_TOKEN_TTL_SECONDS: '86400' }, { database, clock: () => now })
    two = await createTwin(one)
    org = await seedOrganization(one)
  })
  afterEach(() => (now = new Date()))
  afterAll(async () => {
    await two.close()
    await one.close()
    await database.drop()
  })

  it('is the platform’s alone: no credential and no stranger may turn it', async () => {
    const caller = { actor: anonymous(), platform: one.platform }
    await expect(rotateSigningKey.run(caller, {})).rejects.toMatchObject({ code: 'UNAUTHENTICATED' })
    const { code } = await one.graphql('mutation { rotateSigningKey { kid } }', {}, org.admin)
    expect(code).toBe('BAD_USER_INPUT')
  })

  it('publishes public halves alone, to be kept for some minutes', async () => {
    const { response, keys } = await jwks(one)
    expect(response.headers.get('cache-control')).toBe('public, max-age=300')
    for (const key of keys) expect(Object.keys(key).sort()).toEqual(['alg', 'e', 'kid', 'kty', 'n', 'use'])
  })

  it('keeps private halves sealed, out of the reach of requests and of the log', async () => {
    const rows = await one.platform.database.read(system(), (tx) => tx.signingKey.findMany())
    for (const { kid, sealedPrivate } of rows) {
      const pem = one.platform.vault.open('signingKey', [kid], sealedPrivate).reveal()
      expect(pem).toContain('BEGIN PRIVATE KEY')
      const [, body = ''] = pem.split('\n')
      for (const text of [JSON.stringify(rows), one.logged.join('')])
        for (const part of ['PRIVATE KEY', body]) expect(text).not.toContain(part)
      // Sealed to its name: under another one it does not open.
      expect(() => one.platform.vault.open('signingKey', ['another'], sealedPrivate)).toThrow()
    }
    const asMember = member({ kind: 'user', ...person(org.admin), mfaAt: null, given: scopes }, now)
    const seen = one.platform.database.read(asMember, (tx) => tx.signingKey.findMany())
    await expect(seen).rejects.toThrow()
  })

  it('publishes the new key at once and lets the old one verify', async () => {
    const before = await jwks(one)
    const { kid } = await rotateSigningKey.run({ actor: system(), platform: one.platform }, {})
    expect((await jwks(one)).kids).toEqual([kid, ...before.kids])
    expect((await one.graphql(who, {}, org.admin)).errors).toEqual([])
    const fresh = await one.graphql(signInText, { input: { email: org.viewer.email, password } })
    const token = { authorization: `Bearer ${fresh.data['signIn'].accessToken}` }
    expect(kidOf(token)).toBe(kid)
    // What the other instance signs by, whatever it remembers, is good here as well.
    const late = await two.graphql(signInText, { input: { email: org.developer.email, password } })
    const ofTwo = { authorization: `Bearer ${late.data['signIn'].accessToken}` }
    for (const world of [one, two])
      for (const each of [token, ofTwo, org.admin]) expect((await world.graphql(who, {}, each)).errors).toEqual([])
  })

  it('fails no request of any instance while keys rotate under load', async () => {
    let running = true
    const failures: unknown[] = []
    let answered = 0
    const kids = new Set<unknown>()
    const load = async (world: World): Promise<void> => {
      while (running) {
        const signedIn = await world.graphql(signInText, { input: { email: org.developer.email, password } })
        const token = { authorization: `Bearer ${signedIn.data?.['signIn']?.accessToken}` }
        if (signedIn.errors.length) failures.push(signedIn.errors)
        else kids.add(kidOf(token))
        for (const each of [one, two])
          for (const as of [token, org.admin]) {
            const { errors } = await each.graphql(who, {}, as)
            answered += 1
            if (errors.length) failures.push(errors)
          }
      }
    }
    const work = [load(one), load(two)]
    for (let i = 0; i < 4; i += 1) {
      await rotateSigningKey.run({ actor: system(), platform: (i % 2 ? one : two).platform }, {})
      await two.graphql(signInText, { input: { email: org.viewer.email, password } })
    }
    running = false
    await Promise.all(work)
    expect(failures).toEqual([])
    expect(answered).toBeGreaterThan(20)
    expect(kids.size).toBeGreaterThan(1)
  })

  it('rotates by schedule, once, whichever instances look', async () => {
    const before = (await jwks(one)).kids
    await signingKeyRotation(one.platform).run()
    expect((await jwks(one)).kids).toEqual(before)
    now = new Date(Date.now() + 31 * 86_400_000)
    await Promise.all([signingKeyRotation(one.platform).run(), signingKeyRotation(two.platform).run()])
    const after = (await jwks(one)).kids
    expect(after.filter((kid) => !before.includes(kid))).toHaveLength(1)
  })

  it('stops verifying and publishing the old key once its last token has expired', async () => {
    const kept = (await jwks(one)).kids[0]
    now = new Date(Date.now() + 31 * 86_400_000 + 60_000)
    const { kid } = await rotateSigningKey.run({ actor: system(), platform: one.platform }, {})
    now = new Date(now.getTime() + 86_400_000)
    expect((await jwks(one)).kids).toContain(kept)
    now = new Date(now.getTime() + 600_000)
    expect((await jwks(one)).kids).toEqual([kid])
  })

  it('looks an unknown key up a bounded number of times', async () => {
    const forged = (i: number) =>
      [{ alg: 'RS256', typ: 'at+jwt', kid: `${'x'.repeat(40)}${100 + i}` }, {}, {}]
        .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
        .join('.')
    await jwks(one)
    one.statements.length = 0
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, i) => one.graphql(who, {}, { authorization: `Bearer ${forged(i)}` })),
    )
    expect(new Set(answers.map(({ code }) => code))).toEqual(new Set(['UNAUTHENTICATED']))
    expect(one.statements.filter((text) => text.includes('signing_keys')).length).toBeLessThan(10)
  })
})

it('rotates from the command line', async () => {
  const database = await createDatabase()
  const { stdout } = await cli(['keys', 'rotate'], { ...database.settings, LOG_LEVEL: 'silent' })
  expect(stdout).toMatch(/^Signing with [\w-]{43} from now on/)
  const world = await createWorld({}, { database })
  // The newest comes first; the one that the database came with verifies on.
  const { kids } = await jwks(world)
  expect(kids[0]).toBe(/with ([\w-]{43})/.exec(stdout)?.[1])
  const signedIn = await seedOrganization(world)
  expect(kidOf(signedIn.viewer)).toBe(kids[0])
  await world.close()
  await database.drop()
}, 90_000)
