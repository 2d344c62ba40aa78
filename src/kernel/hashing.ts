import bcrypt from 'bcrypt'
import { createHmac } from 'node:crypto'
import { availableParallelism } from 'node:os'
import type { Secret } from './secret.ts'

/** A first-come gate: at most `width` tasks at once, the rest wait in order. */
class Gate {
  #free: number
  readonly #width: number
  readonly #waiting: (() => void)[] = []

  constructor(width: number) {
    this.#free = width
    this.#width = width
  }

  /** Tasks that were let in since the start. */
  admitted = 0

  async run<T>(task: () => Promise<T>): Promise<T> {
    this.admitted += 1
    if (this.#free > 0) this.#free -= 1
    else await new Promise<void>((resolve) => this.#waiting.push(resolve))
    try {
      return await task()
    } finally {
      const next = this.#waiting.shift()
      if (next) next()
      else this.#free += 1
    }
  }

  get waiting(): number {
    return this.#waiting.length
  }

  get running(): number {
    return this.#width - this.#free
  }
}

// bcrypt reads 72 bytes at the most and stops at a NUL, so it is given a digest in base64 (44 characters). Not the bare
// SHA-256: a list of such digests that leaked elsewhere could be tried against our hashes as if they were passwords
// ("password shucking"). A key that is this platform's own makes its digests like nobody else's.
const domain = 'mcp-platform/bcrypt/v1'
const digest = (secret: Secret): string => createHmac('sha256', domain).update(secret.reveal()).digest('base64')

// Of the four threads that file access and asynchronous crypto share, two stay free. Of the cores, one stays with the
// event loop: on two cores, two hashes at once made every other request five times as slow.
const width = Math.min(2, Math.max(1, availableParallelism() - 1))

/** bcrypt behind a narrow gate: unbounded, fifty sign-ins make every other request wait for seconds. */
export class Hasher {
  readonly #gate = new Gate(width)
  readonly #cost: number
  /** A valid hash of a value nobody knows, at the current cost: comparing with it takes as long as with a real one. */
  readonly #decoy: Promise<string>

  constructor(cost: number) {
    this.#cost = cost
    this.#decoy = bcrypt.genSalt(cost).then((salt) => bcrypt.hash(salt, salt))
  }

  hash(secret: Secret): Promise<string> {
    return this.#gate.run(() => bcrypt.hash(digest(secret), this.#cost))
  }

  /** Constant work, whether or not there is a hash to compare with. */
  async matches(secret: Secret, hash: string | null): Promise<boolean> {
    const against = hash ?? (await this.#decoy)
    const same = await this.#gate.run(() => bcrypt.compare(digest(secret), against))
    return same && hash !== null
  }

  /** True when a stored hash is of a lower cost than the one configured now. */
  isWeak(hash: string): boolean {
    return bcrypt.getRounds(hash) < this.#cost
  }

  /** How many hashes are being worked out at this moment. */
  get running(): number {
    return this.#gate.running
  }

  /** How many hashes wait for their turn. */
  get waiting(): number {
    return this.#gate.waiting
  }

  /** How many hashes were made or compared since the start: what sign-ins and unknown keys cost. */
  get total(): number {
    return this.#gate.admitted
  }
}
