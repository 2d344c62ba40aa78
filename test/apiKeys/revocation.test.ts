import { describe, expect, it } from 'vitest'
import { seedOrganization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'
import { call, makeKey, register, revokeKey } from './keys.ts'

/** Two instances on one database; the embedded one has a single instance. */
async function instances(): Promise<{ worlds: World[]; close: () => Promise<void> }> {
  const first = await createWorld()
  const worlds = first.database.embedded ? [first] : [first, await createWorld({}, { database: first.database })]
  return {
    worlds,
    close: async () => {
      for (const world of [...worlds].reverse()) await world.close()
    },
  }
}

describe('a revocation', () => {
  it('lets none of five hundred racing requests through once it is answered, on any instance', async () => {
    const { worlds, close } = await instances()
    const [first, last] = [worlds[0] as World, worlds.at(-1) as World]
    try {
      const org = await seedOrganization(first)
      const documentId = await register(first, org.admin, 'query Viewer { viewer { id } }')
      const key = await makeKey(first, org.developer)
      for (const world of worlds) expect((await call(world, documentId, key.secret)).status).toBe(200)
      let revokedAt = Number.POSITIVE_INFINITY
      const answers: { sentAt: number; status: number }[] = []
      const one = async (i: number): Promise<void> => {
        const sentAt = performance.now()
        const { status } = await call(worlds[i % worlds.length] as World, documentId, key.secret)
        answers.push({ sentAt, status })
      }
      const before = Array.from({ length: 125 }, (_, i) => one(i))
      const revoked = revokeKey(last, org.developer, { id: key.id, reason: 'race' }).then((answer) => {
        revokedAt = performance.now()
        return answer
      })
      const during = Array.from({ length: 125 }, (_, i) => one(i))
      expect((await revoked).errors).toEqual([])
      const after = Array.from({ length: 250 }, (_, i) => one(i))
      await Promise.all([...before, ...during, ...after])
      const late = answers.filter(({ sentAt }) => sentAt > revokedAt)
      expect(late).toHaveLength(250)
      // So many bad secrets from one source lock the source as well: 429.
      expect(late.filter(({ status }) => status !== 401 && status !== 429)).toEqual([])
      expect(
        [...new Set(answers.map(({ status }) => status))].every((status) => [200, 401, 429].includes(status)),
      ).toBe(true)
      expect(late.some(({ status }) => status === 401)).toBe(true)
    } finally {
      await close()
    }
  }, 90_000)
})

describe('bcrypt', () => {
  const p99 = (times: number[]): number => times.sort((a, b) => a - b)[Math.floor(times.length * 0.99)] ?? 0

  it('never blocks the loop: a warm query is hardly slower while fifty sign-ins are in flight', async () => {
    const world = await createWorld({ SIGN_IN_FAILURES_PER_SOURCE: '1000' })
    try {
      const org = await seedOrganization(world)
      const documentId = await register(world, org.admin, 'query Viewer { viewer { id } }')
      const key = await makeKey(world, org.developer)
      const measure = async (count: number): Promise<number> => {
        const times: number[] = []
        for (let i = 0; i < count; i += 1) {
          const started = performance.now()
          expect((await call(world, documentId, key.secret)).status).toBe(200)
          times.push(performance.now() - started)
          await new Promise(setImmediate)
        }
        return p99(times)
      }
      await measure(100)
      const alone = await measure(200)
      const signIns = Array.from({ length: 50 }, (_, i) =>
        world.graphql('mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }', {
          input: { email: `stranger-${i}@example.com`, password: 'wrong horse battery staple' },
        }),
      )
      const beside = await measure(200)
      await Promise.all(signIns)
      process.stderr.write(
        `p99 of a warm query: ${alone.toFixed(1)} ms alone, ${beside.toFixed(1)} ms beside 50 sign-ins\n`,
      )
      // Fifty compares of 55 ms through a gate of two are over a second of work; a blocked query would wait for much of it.
      expect(beside).toBeLessThan(Math.max(alone * 10, 250))
    } finally {
      await world.close()
    }
  })
})
