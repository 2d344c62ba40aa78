import { readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import { Hasher } from '../../src/kernel/hashing.ts'
import { decodeNodeId } from '../../src/kernel/nodeId.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { call, makeKey, register } from '../apiKeys/keys.ts'
import { password, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'

const signInText = 'mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }'

let world: World
let org: Organization
let documentId: string
beforeAll(async () => {
  // The real cost: with cheap hashes there would be nothing to wait for.
  world = await createWorld({ BCRYPT_COST: '10' })
  org = await seedOrganization(world)
  documentId = await register(world, org.admin, 'query Viewer { viewer { id } }')
})
afterAll(() => world.close())

describe('bcrypt', () => {
  it('leaves a core and threads to everybody else, however many sign in: a file is read while fifty hashes wait', async () => {
    const hasher = new Hasher(9)
    let done = 0
    let most = 0
    const compare = async (i: number): Promise<void> => {
      await hasher.matches(new Secret(`guess ${i}`), null, 'anybody')
      done += 1
      most = Math.max(most, hasher.running)
    }
    const all = Array.from({ length: 50 }, (_, i) => compare(i))
    // Files share the threads of bcrypt: without a gate this one would come after the fiftieth.
    await readFile(import.meta.filename)
    expect(done).toBeLessThan(25)
    await Promise.all(all)
    expect(most).toBeLessThanOrEqual(Math.max(1, availableParallelism() - 1))
  })

  it('is all that is stored of keys and passwords, at the configured cost', async () => {
    const { id, secret } = await makeKey(world, org.developer)
    const [keyRow, userRow] = await world.platform.database.read(system(), async (tx) => [
      await tx.apiKey.findUniqueOrThrow({ where: { id: decodeNodeId(id)?.id ?? '' } }),
      await tx.user.findUniqueOrThrow({ where: { id: org.developer.userId } }),
    ])
    for (const hash of [keyRow.secretHash, userRow.passwordHash]) expect(hash).toMatch(/^\$2b\$10\$.{53}$/)
    const stored = JSON.stringify([keyRow, userRow])
    for (const plain of [secret, secret.slice(-49, -6), password]) expect(stored).not.toContain(plain)
  })

  it('is not asked for a warm key, nor for a session', async () => {
    const key = await makeKey(world, org.developer)
    await call(world, documentId, key.secret)
    const hashed = world.platform.hasher.total
    for (let i = 0; i < 20; i += 1) {
      expect((await call(world, documentId, key.secret)).status).toBe(200)
      expect((await world.graphql('{ viewer { id } }', {}, org.viewer)).status).toBe(200)
    }
    expect(world.platform.hasher.total).toBe(hashed)
  })

  it('verifies a key that many use at once for the first time once', async () => {
    const key = await makeKey(world, org.developer)
    const hashed = world.platform.hasher.total
    const answers = await Promise.all(Array.from({ length: 50 }, () => call(world, documentId, key.secret)))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    expect(world.platform.hasher.total).toBe(hashed + 1)
  })

  it('serves a neighbour’s sign-in before the many keys that one session makes', async () => {
    const neighbour = await seedOrganization(world)
    const flood = 40
    let made = 0
    const making = Array.from({ length: flood }, async (_, i) => {
      await makeKey(world, org.developer, { name: `key ${i}` })
      made += 1
    })
    while (world.platform.hasher.waiting < flood / 2) await new Promise(setImmediate)
    const input = { email: neighbour.viewer.email, password }
    expect((await world.graphql(signInText, { input })).errors).toEqual([])
    expect(made).toBeLessThan(flood / 4)
    await Promise.all(making)
  })

  it('is asked as often for an account that does not exist as for one that does', async () => {
    const cost = async (email: string): Promise<number> => {
      const hashed = world.platform.hasher.total
      await world.graphql(signInText, { input: { email, password: `${password} wrong` } })
      return world.platform.hasher.total - hashed
    }
    expect(await cost('nobody@example.com')).toBe(await cost(org.viewer.email))
  })
})
