import { describe, expect, it } from 'vitest'
import { FairShare } from '../../../src/kernel/database/fairness.ts'

const settled = () => new Promise((resolve) => setImmediate(resolve))

describe('the shares of a pool', () => {
  const share = (width: number, longest = 200, patienceMs = 60_000) => new FairShare(width, { longest, patienceMs })

  it('are all of it for an organisation that is alone', async () => {
    const pool = share(4)
    await Promise.all([1, 2, 3, 4].map(() => pool.enter('a')))
    expect(pool.taken).toBe(4)
  })

  it('go in turn to those who wait: a newcomer is served before the hundred of one that floods', async () => {
    const pool = share(2)
    const order: string[] = []
    const work = async (tenant: string): Promise<void> => {
      const leave = await pool.enter(tenant)
      order.push(tenant)
      await settled()
      leave()
    }
    const flood = Array.from({ length: 100 }, () => work('flood'))
    await settled()
    const others = ['b', 'c', 'b', 'c'].map(work)
    await Promise.all(others)
    expect(order.filter((tenant) => tenant === 'flood').length).toBeLessThan(10)
    await Promise.all(flood)
    expect([pool.taken, pool.waiting, order.length]).toEqual([0, 0, 104])
  })

  it('are no more than an equal part while others are at work', async () => {
    const pool = share(4)
    const leaves = await Promise.all(['a', 'b'].map((tenant) => pool.enter(tenant)))
    await pool.enter('a')
    let third = false
    void pool.enter('a').then(() => (third = true))
    await settled()
    expect([third, pool.taken, pool.waiting]).toEqual([false, 3, 1])
    leaves[1]?.()
    await settled()
    expect([third, pool.taken, pool.waiting]).toEqual([true, 3, 0])
  })

  it('end in a refusal where the line is too long, or the wait', async () => {
    const pool = share(1, 1, 20)
    const leave = await pool.enter('a')
    const late = pool.enter('a')
    await expect(pool.enter('b')).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE', retryAfterSeconds: 1 })
    await expect(late).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
    expect([pool.taken, pool.waiting]).toEqual([1, 0])
    leave()
    leave()
    expect(pool.taken).toBe(0)
    ;(await pool.enter('b'))()
    expect(pool.taken).toBe(0)
  })
})
