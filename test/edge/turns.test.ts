import { describe, expect, it } from 'vitest'
import { Turns } from '../../src/edge/load.ts'

/** Who has begun, in order. */
function asking(turns: Turns) {
  const begun: string[] = []
  const ask = (tenant: string): Promise<unknown> => turns.enter(tenant).then(() => begun.push(tenant))
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  const rounds = async (count: number): Promise<void> => {
    for (let round = 0; round < count; round += 1) await settled()
  }
  return { begun, ask, settled, rounds }
}

describe('turns on the event loop', () => {
  it('hold nobody back while it is not busy', async () => {
    const turns = new Turns(100)
    const { begun, ask, rounds } = asking(turns)
    for (let n = 0; n < 100; n += 1) void ask('flood')
    await rounds(60)
    expect(begun).toHaveLength(100)
  })

  it('begin a few a round even then, so that a burst does not stand in a neighbour’s way', async () => {
    const turns = new Turns(100)
    const { begun, ask, settled } = asking(turns)
    for (let n = 0; n < 100; n += 1) void ask('flood')
    void ask('neighbour')
    await settled()
    expect(begun.length).toBeLessThan(10)
    expect(begun).toContain('neighbour')
  })

  it('leave a flood a little, and let a neighbour in at once', async () => {
    const turns = new Turns(100)
    const { begun, ask, settled } = asking(turns)
    for (let n = 0; n < 20; n += 1) turns.observe(1)
    for (let n = 0; n < 50; n += 1) void ask('flood')
    await settled()
    expect(begun).toEqual(['flood', 'flood'])
    void ask('neighbour')
    await settled()
    expect(begun).toEqual(['flood', 'flood', 'neighbour'])
  })

  it('are given to each that waits in turn, and all come to an end', async () => {
    const turns = new Turns(100)
    const { begun, ask, settled } = asking(turns)
    for (let n = 0; n < 20; n += 1) turns.observe(1)
    for (let n = 0; n < 30; n += 1) void ask('flood')
    for (const tenant of ['a', 'b', 'c', 'd', 'e']) void ask(tenant)
    for (let left = 0; left < 35; left += 1) {
      await settled()
      turns.leave(begun[left] as string)
    }
    expect(begun).toHaveLength(35)
    // The five had waited behind thirty, and were served among the first of them.
    for (const tenant of ['a', 'b', 'c', 'd', 'e']) expect(begun.indexOf(tenant)).toBeLessThan(12)
  })

  it('begin one of an organisation in a round while the loop is busy', async () => {
    const beginning = async (utilization: number): Promise<string[]> => {
      const turns = new Turns(100)
      const { begun, ask } = asking(turns)
      turns.observe(utilization)
      for (let n = 0; n < 4; n += 1) void ask('flood')
      // What has its turn at once is told so before this round ends.
      for (let n = 0; n < 5; n += 1) await Promise.resolve()
      return [...begun]
    }
    expect(await beginning(0.2)).toEqual(['flood', 'flood'])
    expect(await beginning(1)).toEqual(['flood'])
  })

  it('begin a few in several rounds while requests are refused, so that new connections are heard between them', async () => {
    const turns = new Turns(100)
    const { begun, ask, rounds } = asking(turns)
    turns.observe(0.5, true)
    for (const tenant of ['a', 'b', 'c', 'd', 'e', 'f']) void ask(tenant)
    await rounds(7)
    expect(begun).toEqual(['a', 'b', 'c', 'd'])
    turns.observe(0.5)
    await rounds(10)
    expect(begun.sort()).toEqual(['a', 'b', 'c', 'd', 'e', 'f'])
  })

  it('become more again when the loop has time', async () => {
    const turns = new Turns(100)
    const { begun, ask, rounds } = asking(turns)
    for (let n = 0; n < 20; n += 1) turns.observe(1)
    for (let n = 0; n < 60; n += 1) void ask('flood')
    for (let n = 0; n < 20; n += 1) turns.observe(0.2)
    await rounds(40)
    expect(begun).toHaveLength(60)
  })
})
