import { AppError } from '../../kernel/errors.ts'
import { Cancelled } from './upstreamErrors.ts'

/** How many may wait for each one that may run. */
const queuePerSlot = 4

/** Lets so many through at a time, a bounded number wait, and refuses the rest at once. */
export class Gate {
  readonly #size: number
  #running = 0
  readonly #waiting = new Set<() => void>()

  constructor(size: number) {
    this.#size = size
  }

  async through<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.#enter(signal)
    try {
      return await work()
    } finally {
      const [next] = this.#waiting
      if (next) next()
      else this.#running--
    }
  }

  async #enter(signal: AbortSignal | undefined): Promise<void> {
    if (this.#running < this.#size) {
      this.#running++
      return
    }
    if (this.#waiting.size >= this.#size * queuePerSlot)
      throw new AppError('RATE_LIMITED', 'Too many calls of this service are waiting already.', {
        retryAfterSeconds: 1,
      })
    await new Promise<void>((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.delete(enter)
        reject(new Cancelled('The caller gave up.'))
      }
      // The slot is handed over, so the count of those running stays.
      const enter = (): void => {
        this.#waiting.delete(enter)
        signal?.removeEventListener('abort', leave)
        resolve()
      }
      if (signal?.aborted) return leave()
      this.#waiting.add(enter)
      signal?.addEventListener('abort', leave, { once: true })
    })
  }
}
