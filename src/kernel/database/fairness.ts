import { AppError } from '../errors.ts'

type Waiting = { admit: () => void; timer: NodeJS.Timeout }

const busy = (): AppError =>
  new AppError('SERVICE_UNAVAILABLE', 'The platform is busy. Try again in a moment.', { retryAfterSeconds: 1 })

/**
 * Shares a pool's connections between organisations: places are given in turn to each that waits, and while several are at
 * work none holds more than its part, so that one that floods the platform waits for itself. The line is bounded in length
 * and in time.
 */
export class FairShare {
  readonly #width: number
  readonly #longest: number
  readonly #patienceMs: number
  readonly #running = new Map<string, number>()
  // In the order of their turns: who was served goes to the end.
  readonly #lines = new Map<string, Waiting[]>()
  #taken = 0
  #waiting = 0

  constructor(width: number, { longest, patienceMs }: { longest: number; patienceMs: number }) {
    this.#width = width
    this.#longest = longest
    this.#patienceMs = patienceMs
  }

  get waiting(): number {
    return this.#waiting
  }

  get taken(): number {
    return this.#taken
  }

  #mayRun(tenant: string): boolean {
    if (this.#taken >= this.#width) return false
    const held = this.#running.get(tenant) ?? 0
    const [running, lines] = [this.#running, this.#lines]
    const others = Math.max(running.size - Number(running.has(tenant)), lines.size - Number(lines.has(tenant)))
    return held < Math.max(1, Math.floor(this.#width / (others + 1)))
  }

  #start(tenant: string): void {
    this.#taken += 1
    this.#running.set(tenant, (this.#running.get(tenant) ?? 0) + 1)
  }

  #leave(tenant: string): void {
    this.#taken -= 1
    const left = (this.#running.get(tenant) ?? 1) - 1
    if (left > 0) this.#running.set(tenant, left)
    else this.#running.delete(tenant)
    this.#serve()
  }

  #serve(): void {
    for (const [tenant, line] of this.#lines) {
      if (this.#taken >= this.#width) return
      if (!this.#mayRun(tenant)) continue
      const next = line.shift()
      this.#lines.delete(tenant)
      if (line.length > 0) this.#lines.set(tenant, line)
      if (!next) continue
      this.#waiting -= 1
      clearTimeout(next.timer)
      next.admit()
    }
  }

  #wait(tenant: string): Promise<void> {
    if (this.#waiting >= this.#longest) return Promise.reject(busy())
    return new Promise((resolve, reject) => {
      const line = this.#lines.get(tenant) ?? []
      const admit = (): void => {
        this.#start(tenant)
        resolve()
      }
      const timer = setTimeout(() => {
        line.splice(line.indexOf(entry), 1)
        this.#waiting -= 1
        if (line.length === 0 && this.#lines.get(tenant) === line) this.#lines.delete(tenant)
        reject(busy())
      }, this.#patienceMs)
      const entry: Waiting = { admit, timer }
      line.push(entry)
      this.#lines.set(tenant, line)
      this.#waiting += 1
    })
  }

  /** Resolves when the tenant has a place, with what gives it back; throws `SERVICE_UNAVAILABLE` where the line is too long. */
  async enter(tenant: string): Promise<() => void> {
    if (!this.#lines.has(tenant) && this.#mayRun(tenant)) this.#start(tenant)
    else await this.#wait(tenant)
    let left = false
    return () => {
      if (left) return
      left = true
      this.#leave(tenant)
    }
  }
}
