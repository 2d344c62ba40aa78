import { system } from '../../kernel/actor.ts'
import { boundedCache } from '../../kernel/boundedCache.ts'
import { resource, type Platform } from '../../kernel/platform.ts'

const minuteMs = 60_000
const gatherMs = 1000

/** Notes when sessions were last used: many in one statement, each at most once a minute, never in a request's way. */
class LastUse {
  readonly #platform: Platform
  readonly #written = boundedCache<number>(50_000)
  #due = new Map<string, Date>()
  #timer: NodeJS.Timeout | null = null
  #running: Promise<void> = Promise.resolve()

  constructor(platform: Platform) {
    this.#platform = platform
  }

  note(sessionId: string, now: Date): void {
    const last = this.#written.get(sessionId)
    if (last !== undefined && Math.abs(now.getTime() - last) < minuteMs) return
    this.#written.set(sessionId, now.getTime())
    this.#due.set(sessionId, now)
    this.#timer ??= setTimeout(() => void this.flush(), gatherMs).unref()
  }

  flush(): Promise<void> {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    const due = this.#due
    this.#due = new Map()
    this.#running = this.#running.then(() => this.#write(due))
    return this.#running
  }

  async #write(due: Map<string, Date>): Promise<void> {
    if (due.size === 0) return
    const [ids, times] = [[...due.keys()], [...due.values()]]
    await this.#platform.database
      .transact(
        system(),
        (tx) => tx.$executeRaw`
          UPDATE sessions s SET last_used_at = u.at FROM unnest(${ids}::uuid[], ${times}::timestamptz[]) AS u (id, at)
          WHERE s.id = u.id AND s.revoked_at IS NULL
            AND (s.last_used_at IS NULL OR s.last_used_at <= u.at - interval '1 minute')`,
      )
      .catch((error: unknown) => this.#platform.log.warn({ err: error }, 'the last use of sessions was not noted'))
  }

  close(): Promise<void> {
    return this.flush()
  }
}

export const lastUse = resource((platform) => new LastUse(platform))
