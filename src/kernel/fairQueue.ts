import { AppError } from './errors.ts'

const busy = (): AppError =>
  new AppError('SERVICE_UNAVAILABLE', 'The platform is busy. Try again in a moment.', { retryAfterSeconds: 1 })

/** One who waits: `admit` gives it its place, `refuse` ends its wait without one. */
type Waiter = { admit: () => void; refuse: (reason: unknown) => void }

export type QueueBounds = {
  /** How many may wait. One tenant never takes the room of the others: each has an equal part of it. */
  longest: number
  /** How long each may wait. */
  patienceMs: number
}

/**
 * Shares a number of places (connections, threads) between tenants: places are given in turn to each that waits, and while
 * several are at work none holds more than its part, so that one that floods the platform waits for itself. The queue is
 * bounded in length and in time.
 */
export class FairQueue {
  readonly #width: number
  readonly #bounds: QueueBounds
  readonly #held = new Map<string, number>()
  // In the order of their turns: who was served goes to the end.
  readonly #queues = new Map<string, Waiter[]>()
  #taken = 0
  #waiting = 0
  #admitted = 0

  constructor(width: number, bounds: QueueBounds) {
    this.#width = width
    this.#bounds = bounds
  }

  get waiting(): number {
    return this.#waiting
  }

  get taken(): number {
    return this.#taken
  }

  /** Places that were given since the start. */
  get admitted(): number {
    return this.#admitted
  }

  /**
   * Resolves when the tenant has a place, with what gives it back. Rejects with `SERVICE_UNAVAILABLE` where the tenant's
   * queue or the wait is too long, and with the signal's reason where whoever waits gives up.
   */
  async enter(tenant: string, signal?: AbortSignal): Promise<() => void> {
    signal?.throwIfAborted()
    if (!this.#queues.has(tenant) && this.#mayEnter(tenant)) this.#take(tenant)
    else await this.#wait(tenant, signal)
    let left = false
    return () => {
      if (left) return
      left = true
      this.#leave(tenant)
    }
  }

  /** Does the work in a place of the tenant's. */
  async run<T>(tenant: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const leave = await this.enter(tenant, signal)
    try {
      return await work()
    } finally {
      leave()
    }
  }

  #mayEnter(tenant: string): boolean {
    if (this.#taken >= this.#width) return false
    const held = this.#held.get(tenant) ?? 0
    if (held === 0) return true
    const others = Math.max(this.#held.size - 1, this.#queues.size - Number(this.#queues.has(tenant)))
    return held < Math.floor(this.#width / (others + 1))
  }

  #take(tenant: string): void {
    this.#taken += 1
    this.#admitted += 1
    this.#held.set(tenant, (this.#held.get(tenant) ?? 0) + 1)
  }

  #leave(tenant: string): void {
    this.#taken -= 1
    const left = (this.#held.get(tenant) ?? 1) - 1
    if (left > 0) this.#held.set(tenant, left)
    else this.#held.delete(tenant)
    for (const [each, queue] of this.#queues) {
      if (this.#taken >= this.#width) return
      if (!this.#mayEnter(each)) continue
      const next = queue[0]
      this.#remove(each, queue, next)
      // To the end of the turns.
      if (queue.length > 0) this.#requeue(each, queue)
      next?.admit()
    }
  }

  #requeue(tenant: string, queue: Waiter[]): void {
    this.#queues.delete(tenant)
    this.#queues.set(tenant, queue)
  }

  #remove(tenant: string, queue: Waiter[], waiter: Waiter | undefined): void {
    const at = waiter ? queue.indexOf(waiter) : -1
    if (at < 0) return
    queue.splice(at, 1)
    this.#waiting -= 1
    if (queue.length === 0) this.#queues.delete(tenant)
  }

  #wait(tenant: string, signal: AbortSignal | undefined): Promise<void> {
    const queue = this.#queues.get(tenant) ?? []
    const tenants = this.#queues.size + Number(!this.#queues.has(tenant))
    if (queue.length >= this.#bounds.longest / tenants) return Promise.reject(busy())
    this.#queues.set(tenant, queue)
    this.#waiting += 1
    return new Promise((resolve, reject) => {
      const giveUp = (): void => waiter.refuse(signal?.reason)
      const patience = setTimeout(() => waiter.refuse(busy()), this.#bounds.patienceMs)
      const settle = (): void => {
        clearTimeout(patience)
        signal?.removeEventListener('abort', giveUp)
      }
      const waiter: Waiter = {
        admit: () => {
          settle()
          this.#take(tenant)
          resolve()
        },
        refuse: (reason) => {
          settle()
          this.#remove(tenant, queue, waiter)
          reject(reason instanceof Error ? reason : busy())
        },
      }
      queue.push(waiter)
      signal?.addEventListener('abort', giveUp, { once: true })
    })
  }
}
