import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Lockout, type LockPolicy } from '../../src/kernel/lockout.ts'
import { contains, isWithin, sourceOf } from '../../src/kernel/source.ts'
import { RateLimited, rateLimitFields, Standing, Throttle, type Quota } from '../../src/kernel/throttle.ts'
import { counterStores, ownStores, startRedis, type TestRedis } from '../harness/redis.ts'
import { createTwin, createWorld, type World } from '../harness/world.ts'

const quota: Quota = { limit: 50, windowSeconds: 60, withoutStore: 'local' }
const policy: LockPolicy = {
  freeFailures: 5,
  firstLockSeconds: 60,
  longestLockSeconds: 200,
  forgetSeconds: 600,
  onSuccess: 'clear',
  code: 'ACCOUNT_LOCKED',
  message: 'locked',
}

const outcomes = async <T>(work: Promise<T>[]): Promise<{ passed: T[]; refused: unknown[] }> => {
  const settled = await Promise.allSettled(work)
  return {
    passed: settled.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : [])),
    refused: settled.flatMap((each) => (each.status === 'rejected' ? [each.reason as unknown] : [])),
  }
}
const times = <T>(n: number, make: () => T): T[] => Array.from({ length: n }, make)
const secondsOf = (error: unknown): number => (error as { retryAfterSeconds: number }).retryAfterSeconds

describe.each(counterStores)('limits and locks counted in %s', (store) => {
  let redis: TestRedis | null = null
  let here: World
  let there: World
  /** Whether two instances can share counters: the embedded database has one instance alone. */
  let shared: boolean
  beforeAll(async () => {
    if (store === 'Redis') redis = await startRedis()
    here = await createWorld(redis?.settings ?? {})
    shared = redis !== null || !here.database.embedded
    there = await createTwin(here, redis?.settings ?? {})
  })
  afterAll(async () => {
    await there.close()
    await here.close()
    await redis?.stop()
  })

  it('admits exactly the quota when four times as many ask at once', async () => {
    const limiter = new Throttle(here.platform, 'crowd', quota)
    const { passed, refused } = await outcomes(times(200, () => limiter.consume('one')))
    expect([passed.length, refused.length]).toEqual([50, 150])
    expect(refused[0]).toBeInstanceOf(RateLimited)
    expect(secondsOf(refused[0])).toBeGreaterThan(0)
    expect(secondsOf(refused[0])).toBeLessThanOrEqual(60)
  })

  it('lets no two keys share a quota', async () => {
    const limiter = new Throttle(here.platform, 'apart', { ...quota, limit: 1 })
    await limiter.consume('one')
    await expect(limiter.consume('one')).rejects.toThrow(RateLimited)
    await expect(limiter.consume('two')).resolves.toMatchObject({ remaining: 0 })
  })

  it('refuses what costs too much and still admits what fits', async () => {
    const limiter = new Throttle(here.platform, 'cost', { ...quota, limit: 1000 })
    await limiter.consume('one', 900)
    await expect(limiter.consume('one', 101)).rejects.toMatchObject({ code: 'RATE_LIMITED' })
    await expect(limiter.consume('one', 2000)).rejects.toMatchObject({ code: 'RATE_LIMITED' })
    const { passed } = await outcomes(times(200, () => limiter.consume('one', 1)))
    expect(passed.length).toBeLessThanOrEqual(100)
  })

  it('begins anew when the window ends', async () => {
    const limiter = new Throttle(here.platform, 'window', { ...quota, limit: 2, windowSeconds: 1 })
    await outcomes(times(3, () => limiter.consume('one')))
    await expect(limiter.consume('one')).rejects.toThrow(RateLimited)
    await expect
      .poll(
        () =>
          limiter.consume('one').then(
            () => true,
            () => false,
          ),
        { timeout: 5000 },
      )
      .toBe(true)
  })

  it('makes two instances one: together they never pass the quota, and leave at most a hundredth each unused', async () => {
    if (!shared) return
    const limits = [here, there].map(({ platform }) => new Throttle(platform, 'both', { ...quota, limit: 1000 }))
    const { passed } = await outcomes(limits.flatMap((limiter) => times(900, () => limiter.consume('one'))))
    expect(passed.length).toBeLessThanOrEqual(1000)
    expect(passed.length).toBeGreaterThanOrEqual(980)
  })

  it('counts a hundred attempts at once one by one, and lets one more through as it locks', async () => {
    const locks = new Lockout(here.platform, 'guess', policy)
    const { passed, refused } = await outcomes(times(100, () => locks.begin('one')))
    expect(passed).toHaveLength(6)
    expect(passed.filter((attempt) => attempt.failed() !== null)).toHaveLength(1)
    expect(new Set(refused.map((error) => (error as { code: string }).code))).toEqual(new Set(['ACCOUNT_LOCKED']))
  })

  it('locks on every instance at once', async () => {
    if (!shared) return
    const locks = new Lockout(here.platform, 'spread', policy)
    await outcomes(times(6, () => locks.begin('one')))
    await expect(new Lockout(there.platform, 'spread', policy).begin('one')).rejects.toMatchObject({
      code: 'ACCOUNT_LOCKED',
    })
  })

  it('doubles each lock up to the longest, and opens by itself', async () => {
    const locks = new Lockout(here.platform, 'grow', {
      ...policy,
      freeFailures: 1,
      firstLockSeconds: 1,
      longestLockSeconds: 2,
    })
    const attempt = () => locks.begin('one').catch(() => null)
    const seen: (number | null)[] = [(await attempt())?.failed() ?? null]
    for (const _ of [1, 2, 3])
      await expect
        .poll(
          async () => {
            const opened = await attempt()
            if (opened) seen.push(opened.failed())
            return opened !== null
          },
          { timeout: 5000 },
        )
        .toBe(true)
    expect(seen).toEqual([null, 1, 2, 2])
  })

  it('forgets failures on success, or only its own attempt where a success proves nothing about the others', async () => {
    const clearing = new Lockout(here.platform, 'clear', policy)
    for (let i = 0; i < 5; i += 1) await clearing.begin('one')
    await (await clearing.begin('one')).succeeded()
    const again = await outcomes(times(6, () => clearing.begin('one')))
    expect(again.passed).toHaveLength(6)

    const keeping = new Lockout(here.platform, 'keep', { ...policy, onSuccess: 'giveBack' })
    for (let i = 0; i < 5; i += 1) await keeping.begin('one')
    await (await keeping.begin('one')).succeeded()
    const next = await keeping.begin('one')
    expect(next.failed()).toBe(60)
    await expect(keeping.begin('one')).rejects.toMatchObject({ code: 'ACCOUNT_LOCKED' })
  })
})

describe.each(ownStores)('while the shared counters of %s are away', () => {
  it('counts on alone where an outage must not stop anybody, and refuses where it must not help anybody', async () => {
    const redis = await startRedis()
    const world = await createWorld(redis.settings)
    try {
      const open = new Throttle(world.platform, 'open', { ...quota, limit: 10 })
      const closed = new Throttle(world.platform, 'closed', { ...quota, withoutStore: 'refuse' })
      const locks = new Lockout(world.platform, 'locks', policy)
      await Promise.all([open.consume('before'), closed.consume('before'), locks.begin('before')])
      await redis.stop()
      const { passed, refused } = await outcomes(times(30, () => open.consume('after')))
      expect([passed.length, refused.length]).toEqual([10, 20])
      await expect(closed.consume('after')).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
      expect((await outcomes(times(30, () => locks.begin('after')))).passed).toHaveLength(6)
      expect(world.logged.filter((line) => line.includes('the shared counters do not answer'))).toHaveLength(1)
    } finally {
      await world.close()
      await redis.stop()
    }
  })
})

describe('what is counted for one sender', () => {
  it('takes an IPv4 address as it is, however it is written, and an IPv6 host by its /64', () => {
    expect(sourceOf({ ip: '192.0.2.7' })).toBe('192.0.2.7')
    expect(sourceOf({ ip: '::ffff:192.0.2.7' })).toBe('192.0.2.7')
    expect(sourceOf({ ip: '2001:db8:1:2:3:4:5:6' })).toBe(sourceOf({ ip: '2001:0db8:0001:0002::1' }))
    expect(sourceOf({ ip: '2001:db8:1:3::1' })).not.toBe(sourceOf({ ip: '2001:db8:1:2::1' }))
    expect(sourceOf({ ip: null })).toBe('unknown')
  })

  it('knows what lies in a network', () => {
    expect(isWithin({ ip: '::ffff:10.1.2.3' }, ['10.0.0.0/8'])).toBe(true)
    expect(isWithin({ ip: '11.0.0.1' }, ['10.0.0.0/8', '2001:db8::/32'])).toBe(false)
    expect(isWithin({ ip: null }, ['0.0.0.0/0'])).toBe(false)
    expect(contains('10.0.0.0/8', '10.2.0.0/16')).toBe(true)
    expect(contains('10.2.0.0/16', '10.0.0.0/8')).toBe(false)
    expect(contains('0.0.0.0/0', '2001:db8::/32')).toBe(false)
  })

  it('is told in the structured fields of the IETF draft', () => {
    const endsAt = Date.now() + 30_000
    const byCost = { ...quota, unit: 'cost' } as const
    expect(
      rateLimitFields([new Standing('user', quota, 7, endsAt), new Standing('organization', byCost, 7, endsAt)]),
    ).toEqual({
      'RateLimit-Policy': '"user";q=50;w=60, "organization";q=50;w=60;qu="cost"',
      RateLimit: '"user";r=7;t=30, "organization";r=7;t=30',
    })
    expect(rateLimitFields([])).toEqual({})
  })
})
