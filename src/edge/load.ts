import { performance } from 'node:perf_hooks'
import type { Origin } from '../kernel/actor.ts'
import { AppError } from '../kernel/errors.ts'
import { metrics } from '../kernel/metrics.ts'
import { resource, type Platform } from '../kernel/platform.ts'
import { Rounds } from './rounds.ts'

const lookEveryMs = 250
const tickEveryMs = 20
const shareEveryMs = 100
/** From this part of its time on the event loop is busy, and more work at once makes nothing faster. */
const busyFrom = 0.9
/** Who has been at work for so long waits for something else than the event loop, and stands in nobody's way. */
const longestTurnMs = 250
/** What may be at work at once, however busy the event loop is. */
const leastAtWork = 4
/**
 * How many requests of one organisation may begin in one round of the event loop, busy or not. A burst of cheap ones (refused
 * for want of allowance, say) is over before the loop could be found busy, and would stand in everybody's way each round.
 */
const beginsPerRound = 2
/** And how many while it is busy, or requests are refused: somebody else's request meets one of a flood in each round, not two. */
const beginsWhileBusy = 1
/**
 * While requests are refused, two of different organisations begin in so many rounds. Each round takes one new connection,
 * and a round without work is short: so connections that come all at once are heard soon, even where each request is long.
 */
const roundsWhileRefusing = 4
const beginsWhileRefusing = 2
/** As many rounds as that where they are short: what makes them long are the refusals themselves, and work is to go on beside them. */
const longestRoundsMs = 50
/** MCP calls that begin in one round: as many as a burst of one client, and some milliseconds of work. */
const callsPerRound = { wide: 32, narrow: 0.5, each: 1 }
/** Of a connection that was refused, and what it grows by with each millisecond that the event loop is late beyond a few. */
const shortestRestMs = 250
// Shorter than a connection may lie idle, or what its client has sent meanwhile would go unanswered.
const longestRestMs = 3000
const restPerDelay = 4
const toleratedDelayMs = 100
/** Requests that may be in work however slow the event loop is, so that one that only just woke up serves somebody. */
const alwaysAdmitted = 16

export const overloaded = (): AppError =>
  new AppError('SERVICE_UNAVAILABLE', 'The platform is busy. Try again in a moment.', { retryAfterSeconds: 1 })

/**
 * Whose turn it is on the event loop. While it is busy, only so many requests are at work as keep it so, no more than half
 * of them of one organisation, and the others wait in a line for each: so a request of somebody else meets a few, not the
 * whole flood, and the loop comes round often enough to take new connections. Where requests wait for something else than
 * the event loop, it is not busy, and nobody is held back.
 */
export class Turns {
  readonly #most: number
  readonly #atWork = new Map<string, number>()
  // In the order of their turns: who was served goes to the end.
  readonly #lines = new Map<string, (() => void)[]>()
  // What has begun in this round of the event loop.
  readonly #begun = new Map<string, number>()
  #total = 0
  #width: number
  #refusing = false
  #busy = false

  constructor(most: number) {
    this.#most = most
    this.#width = most * 2
  }

  /** Hears which part of its time the event loop was at work, and whether requests were refused in it. */
  observe(utilization: number, refusing = false): void {
    this.#refusing = refusing
    this.#busy = utilization >= busyFrom
    this.#width = this.#busy
      ? Math.max(leastAtWork, Math.ceil(Math.min(this.#width, this.#total) / 2))
      : Math.min(this.#most * 2, this.#width * 2)
    this.#serve()
  }

  #mayWork(tenant: string): boolean {
    const held = this.#atWork.get(tenant) ?? 0
    const begun = this.#begun.get(tenant) ?? 0
    if (begun >= (this.#busy || this.#refusing ? beginsWhileBusy : beginsPerRound)) return false
    if (this.#refusing && this.#begun.size >= beginsWhileRefusing) return false
    return held === 0 ? this.#total <= this.#width : this.#total < this.#width && held < this.#width / 2
  }

  #begin(tenant: string): void {
    this.#atWork.set(tenant, (this.#atWork.get(tenant) ?? 0) + 1)
    this.#total += 1
    if (this.#begun.size === 0) this.#endRound(this.#refusing ? roundsWhileRefusing : 1)
    this.#begun.set(tenant, (this.#begun.get(tenant) ?? 0) + 1)
  }

  #endRound(rounds: number, began = performance.now()): void {
    setImmediate(() => {
      if (rounds > 1 && performance.now() - began < longestRoundsMs) return this.#endRound(rounds - 1, began)
      this.#begun.clear()
      this.#serve()
    })
  }

  async enter(tenant: string): Promise<void> {
    if (!this.#lines.has(tenant) && this.#mayWork(tenant)) return this.#begin(tenant)
    const line = this.#lines.get(tenant) ?? []
    this.#lines.set(tenant, line)
    return new Promise((resolve) => void line.push(resolve))
  }

  leave(tenant: string): void {
    const left = (this.#atWork.get(tenant) ?? 1) - 1
    if (left > 0) this.#atWork.set(tenant, left)
    else this.#atWork.delete(tenant)
    this.#total -= 1
    this.#serve()
  }

  #serve(): void {
    for (let served = true; served;) {
      served = false
      for (const [tenant, line] of [...this.#lines]) {
        if (!this.#mayWork(tenant)) continue
        const next = line.shift()
        this.#lines.delete(tenant)
        if (line.length > 0) this.#lines.set(tenant, line)
        if (!next) continue
        this.#begin(tenant)
        next()
        served = true
      }
    }
  }
}

/**
 * How much one process has taken on. It refuses early and cheaply what it could not answer in time, so that what it does
 * take on is answered; and of what it takes on, no organisation gets more than a part while it is busy.
 */
class Load {
  readonly #platform: Platform
  readonly #limit: number
  readonly #longestDelayMs: number
  readonly #ticking: NodeJS.Timeout
  readonly #timer: NodeJS.Timeout
  readonly #tenants = new Map<string, number>()
  readonly #tenantOf = new WeakMap<Origin, string>()
  readonly #turns: Turns
  readonly #turnOf = new Map<Origin, { tenant: string; since: number }>()
  readonly #rounds: Rounds
  readonly #sharing: NodeJS.Timeout
  #inFlight = 0
  #delayMs = 0
  #refused = false

  constructor(platform: Platform) {
    this.#platform = platform
    this.#limit = platform.config.maxRequestsInFlight
    this.#longestDelayMs = platform.config.maxEventLoopDelayMs
    // Node's own histogram forgets its last tick when it is reset, and so knows nothing of rounds that last as long as a look.
    let [ticked, late, ticks] = [performance.now(), 0, 0]
    this.#ticking = setInterval(() => {
      const now = performance.now()
      late += Math.max(0, now - ticked - tickEveryMs)
      ticks += 1
      ticked = now
    }, tickEveryMs).unref()
    this.#timer = setInterval(() => {
      if (ticks > 0) this.#delayMs = late / ticks
      late = ticks = 0
    }, lookEveryMs).unref()
    this.#turns = new Turns(this.#limit)
    this.#rounds = new Rounds({ ...callsPerRound, longest: this.#limit })
    let last = performance.eventLoopUtilization()
    this.#sharing = setInterval(() => {
      for (const [origin, { since }] of this.#turnOf)
        if (performance.now() - since > longestTurnMs) this.#endTurn(origin)
      const now = performance.eventLoopUtilization()
      this.#turns.observe(performance.eventLoopUtilization(now, last).utilization, this.#refused)
      this.#refused = false
      last = now
    }, shareEveryMs).unref()
  }

  get inFlight(): number {
    return this.#inFlight
  }

  /** Whether another request can be taken on; where not, it counts as refused. */
  hasRoom(): boolean {
    const slow = this.#delayMs > this.#longestDelayMs && this.#inFlight >= alwaysAdmitted
    if (this.#inFlight < this.#limit && !slow) return true
    this.#refused = true
    metrics(this.#platform)?.refused('shed')
    return false
  }

  /** How long a connection whose request was refused is not read from: the longer, the less time there is for refusing. */
  get restMs(): number {
    return Math.min(longestRestMs, shortestRestMs + restPerDelay * Math.max(0, this.#delayMs - toleratedDelayMs))
  }

  /** Takes a request on, for which there is room. Whoever is taken on is given back by `end`. */
  begin(): void {
    this.#inFlight += 1
  }

  end(): void {
    this.#inFlight -= 1
  }

  /** Hears of a new connection. */
  connected(): void {
    this.#rounds.connected()
  }

  /** Hears of an organisation that asks for something, by a credential that is good: nobody else is company for a flood. */
  hear(tenant: string): void {
    this.#rounds.hear(tenant)
  }

  /** Resolves when an MCP call may begin; refuses it where more wait than are worth waiting with. */
  async round(tenant: string): Promise<void> {
    if (await this.#rounds.enter(tenant)) return
    this.#refused = true
    metrics(this.#platform)?.refused('shed')
    throw overloaded()
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

  /** Resolves when it is the turn of this request among its organisation's. */
  async turn(origin: Origin, tenant: string): Promise<void> {
    if (this.#turnOf.has(origin)) return
    await this.#turns.enter(tenant)
    this.#turnOf.set(origin, { tenant, since: performance.now() })
  }

  #endTurn(origin: Origin): void {
    const turn = this.#turnOf.get(origin)
    if (!turn) return
    this.#turnOf.delete(origin)
    this.#turns.leave(turn.tenant)
  }

  release(origin: Origin): void {
    this.#endTurn(origin)
    const tenant = this.#tenantOf.get(origin)
    if (tenant === undefined) return
    this.#tenantOf.delete(origin)
    const left = (this.#tenants.get(tenant) ?? 1) - 1
    if (left > 0) this.#tenants.set(tenant, left)
    else this.#tenants.delete(tenant)
  }

  close(): void {
    clearInterval(this.#timer)
    clearInterval(this.#sharing)
    clearInterval(this.#ticking)
  }
}

export const load = resource((platform) => new Load(platform))
