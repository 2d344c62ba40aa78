/** Something that is begun for the first who wants it and ended after the last. */
export class Shared {
  readonly #held = new Map<string, { users: number; end: Promise<() => void> }>()

  /** Resolves, once it has begun, with what to call on leaving. */
  async join(key: string, begin: () => Promise<() => void>): Promise<() => void> {
    const held = this.#held.get(key) ?? { users: 0, end: begin() }
    this.#held.set(key, held)
    held.users++
    let left = false
    const leave = (): void => {
      if (left) return
      left = true
      if (--held.users > 0) return
      if (this.#held.get(key) === held) this.#held.delete(key)
      void held.end.then((end) => end()).catch(() => undefined)
    }
    try {
      await held.end
    } catch (error) {
      leave()
      throw error
    }
    return leave
  }
}
