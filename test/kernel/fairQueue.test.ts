import { describe, expect, it } from 'vitest'
import { FairQueue } from '../../src/kernel/fairQueue.ts'

const settled = () => new Promise((resolve) => setImmediate(resolve))

describe('a fair queue', () => {
  const queueOf = (width: number, longest = 200, patienceMs = 60_000) => new FairQueue(width, { longest, patienceMs })

  it('gives all of its places to a tenant that is alone', async () => {
    const queue = queueOf(4)
    await Promise.all([1, 2, 3, 4].map(() => queue.enter('a')))
    expect(queue.taken).toBe(4)
  })

  it('serves tenants in turn: a newcomer comes before the hundred of one that floods', async () => {
    const queue = queueOf(2)
    const order: string[] = []
    const work = (tenant: string): Promise<void> =>
      queue.run(tenant, async () => {
        order.push(tenant)
        await settled()
      })
    const flood = Array.from({ length: 100 }, () => work('flood'))
    await settled()
    await Promise.all(['b', 'c', 'b', 'c'].map(work))
    expect(order.filter((tenant) => tenant === 'flood').length).toBeLessThan(10)
    await Promise.all(flood)
    expect([queue.taken, queue.waiting, queue.admitted, order.length]).toEqual([0, 0, 104, 104])
  })

  it('gives a tenant no more than an equal part while others are at work', async () => {
    const queue = queueOf(4)
    const leaves = await Promise.all(['a', 'b'].map((tenant) => queue.enter(tenant)))
    await queue.enter('a')
    let third = false
    void queue.enter('a').then(() => (third = true))
    await settled()
    expect([third, queue.taken, queue.waiting]).toEqual([false, 3, 1])
    leaves[1]?.()
    await settled()
    expect([third, queue.taken, queue.waiting]).toEqual([true, 3, 0])
  })

  it('refuses a tenant whose own queue is too long, and keeps room for a newcomer', async () => {
    const queue = queueOf(1, 4)
    const leave = await queue.enter('a')
    const flood = Array.from({ length: 4 }, () => queue.enter('a'))
    await expect(queue.enter('a')).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE', retryAfterSeconds: 1 })
    const newcomer = queue.enter('b')
    expect(queue.waiting).toBe(5)
    leave()
    ;(await flood[0])?.()
    ;(await newcomer)()
  })

  it('refuses a wait that takes too long, and gives no place away with it', async () => {
    const queue = queueOf(1, 10, 20)
    const leave = await queue.enter('a')
    await expect(queue.enter('a')).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
    expect([queue.taken, queue.waiting]).toEqual([1, 0])
    leave()
    leave()
    expect(queue.taken).toBe(0)
    ;(await queue.enter('b'))()
    expect(queue.taken).toBe(0)
  })

  it('lets whoever gives up leave the queue, with the reason', async () => {
    const queue = queueOf(1)
    const leave = await queue.enter('a')
    const caller = new AbortController()
    const waiting = queue.enter('a', caller.signal)
    const behind = queue.enter('a')
    caller.abort(new Error('the caller went away'))
    await expect(waiting).rejects.toThrow('the caller went away')
    await expect(queue.enter('a', caller.signal)).rejects.toThrow('the caller went away')
    leave()
    ;(await behind)()
    expect([queue.taken, queue.waiting]).toEqual([0, 0])
  })

  it('gives the place back where the work fails', async () => {
    const queue = queueOf(1)
    await expect(queue.run('a', () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    expect(queue.taken).toBe(0)
  })
})
