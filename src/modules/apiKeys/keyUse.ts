import { system } from '../../kernel/actor.ts'
import { resource, type Platform } from '../../kernel/platform.ts'

const leastGapMs = 60_000
const gatherMs = 1000

/**
 * When keys were last used: at most once a minute for each key, whichever instance sees it, and never in a request's way.
 * A minute's precision is what the field is for, so what a crash loses is not missed.
 */
export class KeyUse {
  readonly #platform: Platform
  readonly #used = new Map<string, Date>()
  #timer: NodeJS.Timeout | null = null

  constructor(platform: Platform) {
    this.#platform = platform
  }

  note(id: string, lastUsedAt: Date | null): void {
    const now = this.#platform.clock()
    if (this.#used.has(id) || (lastUsedAt && now.getTime() - lastUsedAt.getTime() < leastGapMs)) return
    this.#used.set(id, now)
    this.#timer ??= setTimeout(() => void this.flush(), gatherMs).unref()
  }

  async flush(): Promise<void> {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    const ids = [...this.#used.keys()]
    if (ids.length === 0) return
    const now = this.#platform.clock()
    this.#used.clear()
    const before = new Date(now.getTime() - leastGapMs)
    await this.#platform.database
      .transact(
        system(),
        (tx) => tx.$executeRaw`
          UPDATE api_keys SET last_used_at = ${now}::timestamptz
          WHERE id = ANY (${ids}::uuid[]) AND (last_used_at IS NULL OR last_used_at <= ${before}::timestamptz)`,
      )
      .catch((error: unknown) => this.#platform.log.warn({ err: error }, 'the last use of API keys was not recorded'))
  }

  close(): Promise<void> {
    return this.flush()
  }
}

export const keyUse = resource((platform) => new KeyUse(platform))
