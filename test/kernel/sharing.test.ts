import { describe, expect, it } from 'vitest'
import { Sharing } from '../../src/kernel/sharing.ts'

/** Questions that are answered by hand, with what they see at that moment. */
function desk() {
  const open: { key: string; answer: (value: number) => void; fail: (error: Error) => void }[] = []
  const sharing = new Sharing<number>()
  const ask = (key = 'one'): Promise<number> =>
    sharing.ask(key, () => new Promise((answer, fail) => void open.push({ key, answer, fail })))
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  return { open, ask, settled }
}

describe('questions that come while the same one is under way', () => {
  it('share the next, which begins after all of them', async () => {
    const { open, ask, settled } = desk()
    const first = ask()
    const later = [ask(), ask(), ask()]
    await settled()
    expect(open).toHaveLength(1)
    open[0]?.answer(1)
    expect(await first).toBe(1)
    await settled()
    expect(open).toHaveLength(2)
    // This one came after the second had begun: what that one saw may be older than it.
    const last = ask()
    open[1]?.answer(2)
    expect(await Promise.all(later)).toEqual([2, 2, 2])
    await settled()
    expect(open).toHaveLength(3)
    open[2]?.answer(3)
    expect(await last).toBe(3)
  })

  it('begin at once where nothing is under way any more', async () => {
    const { open, ask, settled } = desk()
    const first = ask()
    open[0]?.answer(1)
    await first
    await settled()
    const second = ask()
    expect(open).toHaveLength(2)
    open[1]?.answer(2)
    expect(await second).toBe(2)
  })

  it('share no answer with another key', async () => {
    const { open, ask } = desk()
    const both = [ask('one'), ask('other')]
    expect(open.map(({ key }) => key)).toEqual(['one', 'other'])
    open[0]?.answer(1)
    open[1]?.answer(2)
    expect(await Promise.all(both)).toEqual([1, 2])
  })

  it('hear of a failure of their own alone', async () => {
    const { open, ask, settled } = desk()
    const first = ask()
    const second = ask()
    open[0]?.fail(new Error('lost'))
    await expect(first).rejects.toThrow('lost')
    await settled()
    open[1]?.answer(2)
    expect(await second).toBe(2)
  })
})
