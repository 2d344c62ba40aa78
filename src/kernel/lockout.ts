import type { Config } from '../config.ts'
import { counters } from './counters.ts'
import { AppError, type ErrorCode } from './errors.ts'
import { resource, type Platform } from './platform.ts'

export type LockPolicy = {
  /** Failures that are free of any lock. */
  freeFailures: number
  /** The first lock; each further failure doubles it, up to the longest. */
  firstLockSeconds: number
  longestLockSeconds: number
  /** Failures are forgotten after so long, counted from the first. */
  forgetSeconds: number
  /** `clear`: a success wipes the slate. `giveBack`: it only takes back its own count, so that nobody resets a slate with an account of their own. */
  onSuccess: 'clear' | 'giveBack'
  code: Extract<ErrorCode, 'ACCOUNT_LOCKED' | 'RATE_LIMITED'>
  message: string
}

/** One try at a secret, counted before the secret is looked at, so that a thousand at once are a thousand. */
export type Attempt = {
  succeeded(): Promise<void>
  /** Answers with the length of the lock that this failure began, if it began one. */
  failed(): number | null
  /** It came to no verdict. */
  withdraw(): Promise<void>
}

/**
 * Growing locks after repeated failures. A lock is taken by the attempt that goes past the free ones, in one atomic step,
 * and that attempt alone is let through; it opens by itself when its time is over. Counted by this instance alone while
 * the shared store is away: a store that can be knocked over must neither lock everybody out nor let everybody guess.
 */
export class Lockout {
  readonly #platform: Platform
  readonly #name: string
  readonly #policy: LockPolicy

  constructor(platform: Platform, name: string, policy: LockPolicy) {
    this.#platform = platform
    this.#name = name
    this.#policy = policy
  }

  #locked(msLeft: number): AppError {
    const { code, message } = this.#policy
    return new AppError(code, message, { retryAfterSeconds: Math.max(1, Math.ceil(msLeft / 1000)) })
  }

  /** Throws while the key is locked. */
  async begin(key: string): Promise<Attempt> {
    const { freeFailures, firstLockSeconds, longestLockSeconds, forgetSeconds, onSuccess } = this.#policy
    const store = counters(this.#platform)
    const failures = `${this.#name}:failures:${key}`
    const lock = `${this.#name}:lock:${key}`
    const giveBack = async (): Promise<void> => void (await store.add(failures, -1, forgetSeconds, 'local'))
    const standing = await store.get(lock, 'local')
    if (standing) throw this.#locked(standing.msLeft)
    const { total } = await store.add(failures, 1, forgetSeconds, 'local')
    const over = total - freeFailures
    const seconds = over > 0 ? Math.min(longestLockSeconds, firstLockSeconds * 2 ** Math.min(over - 1, 30)) : null
    if (seconds !== null) {
      const taken = await store.add(lock, 1, seconds, 'local')
      if (taken.total > 1) {
        await giveBack()
        throw this.#locked(taken.msLeft)
      }
    }
    const unlock = async (): Promise<void> => {
      if (seconds !== null) await store.remove(lock, 'local')
    }
    return {
      failed: () => seconds,
      withdraw: async () => void (await Promise.all([unlock(), giveBack()])),
      succeeded: async () => {
        await unlock()
        await (onSuccess === 'clear' ? store.remove(failures, 'local') : giveBack())
      },
    }
  }
}

export const lockout = (name: string, policyOf: (config: Config) => LockPolicy): ((platform: Platform) => Lockout) =>
  resource((platform) => new Lockout(platform, name, policyOf(platform.config)))
