import { describe, expect, it } from 'vitest'
import { InFlight } from '../../src/kernel/inFlight.ts'
import { run } from '../harness/process.ts'

describe('what is in flight', () => {
  it('is found until it leaves, in the order of its coming', () => {
    const flights = new InFlight<string, number>()
    flights.set('a', 1)
    flights.set('b', 2)
    flights.set('c', 3)
    expect([flights.size, flights.get('b'), [...flights.values()]]).toEqual([3, 2, [1, 2, 3]])
    expect([flights.delete('b'), flights.delete('b'), flights.get('b')]).toEqual([true, false, undefined])
    expect([...flights.values()]).toEqual([1, 3])
    flights.clear()
    expect([flights.size, [...flights.values()]]).toEqual([0, []])
  })

  it('holds the last of two of one key', () => {
    const flights = new InFlight<string, number>()
    flights.set('a', 1)
    flights.set('a', 2)
    expect([flights.size, flights.get('a')]).toEqual([1, 2])
  })

  it('may change while it is looked through', () => {
    const flights = new InFlight<number, number>()
    for (let n = 0; n < 4; n += 1) flights.set(n, n)
    const seen: number[] = []
    for (const n of flights.values()) {
      flights.delete(n)
      flights.delete(3)
      seen.push(n)
    }
    expect(seen).toEqual([0, 1, 2])
  })

  it('does not outlive its time in the old generation, as it would in a Map', async () => {
    // Four times, because a Map's tables begin to grow old by chance: five times in six, and then 50 MiB do.
    const script = `
      import { getHeapSpaceStatistics } from 'node:v8'
      import { InFlight } from './dist/kernel/inFlight.js'
      const old = () => getHeapSpaceStatistics().find(({ space_name }) => space_name === 'old_space').space_used_size
      let most = 0
      for (let round = 0; round < 4; round += 1) {
        const held = new InFlight()
        const before = old()
        for (let n = 0; n < 20_000; n += 1) {
          held.set(n, Array.from({ length: 200 }, (_, i) => ({ i, of: [n] })))
          held.delete(n - 32)
          if (n % 10 === 0) most = Math.max(most, old() - before)
        }
      }
      console.log(most / 2 ** 20)`
    // In a process of its own, with a small young generation, which is collected often.
    const flags = ['--max-semi-space-size=2', '--input-type=module', '--eval', script]
    const { stdout, stderr } = await run(process.execPath, flags)
    expect(stderr).toBe('')
    expect(Number(stdout)).toBeLessThan(10)
  })
})
