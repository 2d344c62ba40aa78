import { monitorEventLoopDelay, type IntervalHistogram } from 'node:perf_hooks'
import type { Origin } from '../kernel/actor.ts'
import { AppError } from '../kernel/errors.ts'
import { metrics } from '../kernel/metrics.ts'
import { resource, type Platform } from '../kernel/platform.ts'

const lookEveryMs = 250
/** Requests that may be in work however slow the event loop is, so that one that only just woke up serves somebody. */
const alwaysAdmitted = 16

export const overloaded = (): AppError =>
  new AppError('SERVICE_UNAVAILABLE', 'The platform is busy. Try again in a moment.', { retryAfterSeconds: 1 })

/**
 * How much one process has taken on. It refuses early and cheaply what it could not answer in time, so that what it does
 * take on is answered; and of what it takes on, no organisation gets more than a part while it is busy.
 */
class Load {
  readonly #platform: Platform
  readonly #limit: number
  readonly #longestDelayMs: number
  readonly #delays: IntervalHistogram
  readonly #timer: NodeJS.Timeout
  readonly #tenants = new Map<string, number>()
  readonly #tenantOf = new WeakMap<Origin, string>()
  #inFlight = 0
  #delayMs = 0

  constructor(platform: Platform) {
    this.#platform = platform
    this.#limit = platform.config.maxRequestsInFlight
    this.#longestDelayMs = platform.config.maxEventLoopDelayMs
    this.#delays = monitorEventLoopDelay({ resolution: 20 })
    this.#delays.enable()
    this.#timer = setInterval(() => {
      this.#delayMs = this.#delays.count > 0 ? this.#delays.mean / 1e6 - 20 : 0
      this.#delays.reset()
    }, lookEveryMs).unref()
  }

  get inFlight(): number {
    return this.#inFlight
  }

  /** Takes a request on, or says that it cannot. Whoever is taken on is given back by `end`. */
  begin(): boolean {
    const slow = this.#delayMs > this.#longestDelayMs && this.#inFlight >= alwaysAdmitted
    if (this.#inFlight >= this.#limit || slow) {
      metrics(this.#platform)?.refused('shed')
      return false
    }
    this.#inFlight += 1
    return true
  }

  end(): void {
    this.#inFlight -= 1
  }

  /** Counts a request for its organisation once that is known; refuses it where the organisation has its part already. */
  admit(origin: Origin, tenant: string): void {
    const held = this.#tenants.get(tenant) ?? 0
    if (this.#inFlight > this.#limit / 2 && held >= Math.max(4, this.#limit / 4)) {
      metrics(this.#platform)?.refused('shed')
      throw overloaded()
    }
    if (this.#tenantOf.has(origin)) return
    this.#tenantOf.set(origin, tenant)
    this.#tenants.set(tenant, held + 1)
  }

  release(origin: Origin): void {
    const tenant = this.#tenantOf.get(origin)
    if (tenant === undefined) return
    this.#tenantOf.delete(origin)
    const left = (this.#tenants.get(tenant) ?? 1) - 1
    if (left > 0) this.#tenants.set(tenant, left)
    else this.#tenants.delete(tenant)
  }

  close(): void {
    clearInterval(this.#timer)
    this.#delays.disable()
  }
}

export const load = resource((platform) => new Load(platform))
