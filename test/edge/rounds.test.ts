import { describe, expect, it } from 'vitest'
import { Rounds } from '../../src/edge/rounds.ts'

const round = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const widths = { wide: 32, narrow: 0.5, each: 1, longest: 500 }

/** Who has begun, in order. */
function asking(rounds: Rounds) {
  const begun: string[] = []
  const ask = async (tenant: string): Promise<boolean> => {
    const may = await rounds.enter(tenant)
    if (may) begun.push(tenant)
    return may
  }
  const askMany = (count: number, tenant: string): Promise<boolean>[] =>
    Array.from({ length: count }, () => ask(tenant))
  const count = (tenant: string): number => begun.filter((each) => each === tenant).length
  return { begun, ask, askMany, count }
}

describe('rounds of the event loop', () => {
  it('begin a burst of one organisation at once', async () => {
    const { begun, askMany } = asking(new Rounds(widths))
    await Promise.all(askMany(32, 'alone'))
    expect(begun).toHaveLength(32)
  })

  it('let no more begin in one than it holds, and all in the end', async () => {
    const { begun, askMany } = asking(new Rounds(widths))
    const all = askMany(200, 'flood')
    await Promise.resolve()
    expect(begun.length).toBeLessThanOrEqual(32)
    await Promise.all(all)
    expect(begun).toHaveLength(200)
  })

  it('begin one of each organisation where several ask', async () => {
    const { ask, askMany, count } = asking(new Rounds(widths))
    await ask('neighbour')
    const flood = askMany(100, 'flood')
    await round()
    await round()
    expect(count('flood')).toBeLessThanOrEqual(4)
    await ask('neighbour')
    expect(count('flood')).toBeLessThanOrEqual(6)
    await Promise.all(flood)
    expect(count('flood')).toBe(100)
  })

  it('are short while new connections come, so that all are heard soon', async () => {
    const rounds = new Rounds(widths)
    const { begun, askMany } = asking(rounds)
    const all = askMany(100, 'flood')
    await round()
    const atFirst = begun.length
    for (let n = 0; n < 20; n += 1) {
      rounds.connected()
      await round()
    }
    expect(begun.length - atFirst).toBeGreaterThanOrEqual(8)
    expect(begun.length - atFirst).toBeLessThanOrEqual(40)
    await Promise.all(all)
    expect(begun).toHaveLength(100)
  })

  it('let more begin where one was long, so that work goes on beside refusals', async () => {
    const rounds = new Rounds({ ...widths, wide: 2 })
    const { begun, askMany } = asking(rounds)
    const all = askMany(100, 'flood')
    await round()
    const before = begun.length
    // The refusals of a round, say.
    for (const until = performance.now() + 40; performance.now() < until;);
    await round()
    await round()
    expect(begun.length - before).toBeGreaterThanOrEqual(20)
    await Promise.all(all)
  })

  it('send away who would wait behind more than there is room for', async () => {
    const { askMany } = asking(new Rounds({ ...widths, wide: 4, longest: 10 }))
    const answers = await Promise.all(askMany(20, 'flood'))
    expect(answers.filter(Boolean)).toHaveLength(14)
  })
})
