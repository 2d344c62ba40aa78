import type { Config } from '../config.ts'
import { boundedCache } from './boundedCache.ts'
import { counters, type WithoutStore } from './counters.ts'
import { AppError } from './errors.ts'
import { metrics } from './metrics.ts'
import { resource, type Platform } from './platform.ts'

/** A quota: so many points in each window, for each key. */
export type Quota = {
  limit: number
  windowSeconds: number
  withoutStore: WithoutStore
  /** What is counted, where it is not requests; the `qu` parameter of `RateLimit-Policy`. */
  unit?: 'cost'
}

/** What is left to a key: the material of the `RateLimit` fields. */
export class Standing {
  readonly policy: string
  readonly quota: Quota
  readonly remaining: number
  readonly #endsAt: number

  constructor(policy: string, quota: Quota, remaining: number, endsAt: number) {
    this.policy = policy
    this.quota = quota
    this.remaining = remaining
    this.#endsAt = endsAt
  }

  get resetSeconds(): number {
    return Math.max(1, Math.ceil((this.#endsAt - Date.now()) / 1000))
  }
}

const smallestPartAhead = 10

/** Points that this instance took from the shared counter and may spend without asking again. */
type Share = { balance: number; endsAt: number; left: number; exhausted: boolean }

/**
 * Counts a key's points and refuses what goes past the quota. An instance takes a hundredth of the quota at a time from the
 * shared counter, so that a request seldom waits for it; all instances together never admit more than the quota, and of
 * what they may admit at most one and a half hundredths each lie unused.
 */
export class Throttle {
  readonly #platform: Platform
  readonly #name: string
  readonly #quota: Quota
  readonly #shares = boundedCache<Share>(100_000)
  readonly #refills = new Map<string, Promise<void>>()

  constructor(platform: Platform, name: string, quota: Quota) {
    this.#platform = platform
    this.#name = name
    this.#quota = quota
  }

  #share(key: string): Share | null {
    const share = this.#shares.get(key)
    return share && share.endsAt > Date.now() ? share : null
  }

  async #refill(key: string, wanted: number, { limit, windowSeconds, withoutStore }: Quota): Promise<void> {
    const take = Math.max(wanted, Math.floor(limit / 100), 1)
    const { total, msLeft } = await counters(this.#platform).add(
      `${this.#name}:${key}`,
      take,
      windowSeconds,
      withoutStore,
    )
    const granted = Math.max(0, Math.min(take, limit - total + take))
    const known = this.#share(key)
    this.#shares.set(key, {
      balance: granted + (known?.balance ?? 0),
      endsAt: Date.now() + msLeft,
      left: Math.max(0, limit - total),
      exhausted: total >= limit,
    })
  }

  #startRefill(key: string, wanted: number, quota: Quota): Promise<void> {
    const refill = this.#refill(key, wanted, quota).finally(() => this.#refills.delete(key))
    this.#refills.set(key, refill)
    return refill
  }

  /** Asks for more while there is still something to spend, so that no request waits for it. Small quotas are taken one by one. */
  #refillAhead(key: string, share: Share, quota: Quota): void {
    const part = Math.floor(quota.limit / 100)
    if (part < smallestPartAhead || share.exhausted || share.balance > part / 2 || this.#refills.has(key)) return
    // Should it fail, the request that needs it asks again, and is told.
    this.#startRefill(key, 0, quota).catch(() => {})
  }

  #standing(share: Share, quota: Quota): Standing {
    return new Standing(this.#name, quota, share.balance + share.left, share.endsAt)
  }

  /** Spends points, or throws `RATE_LIMITED`. `limit` takes the place of the quota's own, for keys that have theirs. */
  async consume(key: string, points = 1, limit = this.#quota.limit): Promise<Standing> {
    const quota = limit === this.#quota.limit ? this.#quota : { ...this.#quota, limit }
    for (;;) {
      const share = this.#share(key)
      if (share && share.balance >= points) {
        share.balance -= points
        this.#refillAhead(key, share, quota)
        return this.#standing(share, quota)
      }
      if (share?.exhausted) {
        metrics(this.#platform)?.refused(this.#name)
        throw limited(this.#standing(share, quota))
      }
      await (this.#refills.get(key) ?? this.#startRefill(key, points - (share?.balance ?? 0), quota))
    }
  }
}

/** Over the quota; carries the standing, so that the answer's fields can say so. */
export class RateLimited extends AppError {
  readonly standing: Standing

  constructor(standing: Standing) {
    const { policy, quota, resetSeconds } = standing
    const { limit, windowSeconds } = quota
    super('RATE_LIMITED', 'Too much in too short a time. Try again later.', {
      extensions: { limit: { policy, limit, windowSeconds } },
      retryAfterSeconds: resetSeconds,
    })
    this.standing = standing
  }
}

const limited = (standing: Standing): RateLimited => new RateLimited(standing)

/** A limiter of this platform, or null where the operator set it to 0. */
export function throttle(name: string, quotaOf: (config: Config) => Quota): (platform: Platform) => Throttle | null {
  const of = resource((platform) => {
    const quota = quotaOf(platform.config)
    return { limiter: quota.limit > 0 ? new Throttle(platform, name, quota) : null }
  })
  return (platform) => of(platform).limiter
}

/**
 * The fields of draft-ietf-httpapi-ratelimit-headers-10: structured lists (RFC 9651) of the quotas that applied, and of what
 * is left of each.
 */
export function rateLimitFields(standings: readonly Standing[]): Record<string, string> {
  if (standings.length === 0) return {}
  const policies = standings.map(
    ({ policy, quota: { limit, windowSeconds, unit } }) =>
      `"${policy}";q=${limit};w=${windowSeconds}${unit ? `;qu="${unit}"` : ''}`,
  )
  const left = standings.map(({ policy, remaining, resetSeconds }) => `"${policy}";r=${remaining};t=${resetSeconds}`)
  return { 'RateLimit-Policy': policies.join(', '), RateLimit: left.join(', ') }
}
