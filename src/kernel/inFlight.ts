/**
 * What is at work now, by key. It is a `Map` that lets go of its values: when V8 outgrows a Map's table it keeps the old one,
 * with the entries of that moment and a reference to the next, and once one of them has grown old enough for the old
 * generation, everything that those tables refer to grows old with them and stays until a full collection. Where each value
 * is a request with all that hangs on it, that is most of what the collector then has to do. So a table refers to a box, and
 * leaving empties the box.
 */
export class InFlight<Key, Value> {
  readonly #held = new Map<Key, { value: Value | undefined }>()

  get size(): number {
    return this.#held.size
  }

  get(key: Key): Value | undefined {
    return this.#held.get(key)?.value
  }

  set(key: Key, value: Value): void {
    this.delete(key)
    this.#held.set(key, { value })
  }

  delete(key: Key): boolean {
    const box = this.#held.get(key)
    if (!box) return false
    box.value = undefined
    return this.#held.delete(key)
  }

  clear(): void {
    for (const key of this.#held.keys()) this.delete(key)
  }

  /** In the order of their coming. */
  *values(): Generator<Value> {
    for (const { value } of this.#held.values()) if (value !== undefined) yield value
  }
}
