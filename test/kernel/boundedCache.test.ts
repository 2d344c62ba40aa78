import { setTimeout as wait } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { boundedCache } from '../../src/kernel/boundedCache.ts'

describe('a bounded cache', () => {
  it('keeps so many and lets go of what was used longest ago', () => {
    const cache = boundedCache<number>(3)
    for (const [n, key] of ['a', 'b', 'c'].entries()) cache.set(key, n)
    cache.get('a')
    cache.set('d', 3)
    expect([...cache.keys()].sort()).toEqual(['a', 'c', 'd'])
  })

  it('holds its bound whatever comes', () => {
    const cache = boundedCache<number>(1000)
    for (let n = 0; n < 10_000; n += 1) cache.set(`key-${n}`, n)
    expect([cache.size, cache.get('key-9000'), cache.get('key-8999')]).toEqual([1000, 9000, undefined])
  })

  it('forgets a value when its time is over, where it has one', async () => {
    const cache = boundedCache<number>(3, 20)
    const lasting = boundedCache<number>(3)
    cache.set('a', 1)
    lasting.set('a', 1)
    expect(cache.get('a')).toBe(1)
    await wait(40)
    expect([cache.get('a'), lasting.get('a')]).toEqual([undefined, 1])
  })
})
