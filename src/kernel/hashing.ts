import bcrypt from 'bcrypt'
import { createHmac } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { FairQueue } from './fairQueue.ts'
import type { Secret } from './secret.ts'

// bcrypt reads 72 bytes at the most and stops at a NUL, so it is given a digest in base64 (44 characters). Not the bare
// SHA-256: a list of such digests that leaked elsewhere could be tried against our hashes as if they were passwords
// ("password shucking"). A key that is this platform's own makes its digests like nobody else's.
const domain = 'mcp-platform/bcrypt/v1'
const digest = (secret: Secret): string => createHmac('sha256', domain).update(secret.reveal()).digest('base64')

// Of the four threads that file access and asynchronous crypto share, two stay free. Of the cores, one stays with the
// event loop: on two cores, two hashes at once made every other request five times as slow.
const width = Math.min(2, Math.max(1, availableParallelism() - 1))

// A hash that has waited for so long is of no use to anybody any more.
const bounds = { longest: 2000, patienceMs: 30_000 }

/**
 * bcrypt behind a narrow queue: unbounded, fifty sign-ins make every other request wait for seconds. Each hash says for
 * which tenant it is worked out, so that one who makes or tries many keys keeps nobody else's sign-in waiting.
 */
export class Hasher {
  readonly #queue = new FairQueue(width, bounds)
  readonly #cost: number
  /** A valid hash of a value nobody knows, at the current cost: comparing with it takes as long as with a real one. */
  readonly #decoy: Promise<string>

  constructor(cost: number) {
    this.#cost = cost
    this.#decoy = bcrypt.genSalt(cost).then((salt) => bcrypt.hash(salt, salt))
  }

  hash(secret: Secret, tenant: string): Promise<string> {
    return this.#queue.run(tenant, () => bcrypt.hash(digest(secret), this.#cost))
  }

  /** Constant work, whether or not there is a hash to compare with. */
  async matches(secret: Secret, hash: string | null, tenant: string): Promise<boolean> {
    const against = hash ?? (await this.#decoy)
    const same = await this.#queue.run(tenant, () => bcrypt.compare(digest(secret), against))
    return same && hash !== null
  }

  /** True when a stored hash is of a lower cost than the one configured now. */
  isWeak(hash: string): boolean {
    return bcrypt.getRounds(hash) < this.#cost
  }

  /** How many hashes are being worked out at this moment. */
  get running(): number {
    return this.#queue.taken
  }

  /** How many hashes wait for their turn. */
  get waiting(): number {
    return this.#queue.waiting
  }

  /** How many hashes were made or compared since the start: what sign-ins and unknown keys cost. */
  get total(): number {
    return this.#queue.admitted
  }
}
