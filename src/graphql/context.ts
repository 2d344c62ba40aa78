import { isMember, type Actor } from '../kernel/actor.ts'
import type { Reader, Tx } from '../kernel/database/door.ts'
import type { AppError } from '../kernel/errors.ts'
import type { Platform } from '../kernel/platform.ts'
import type { Secret } from '../kernel/secret.ts'

/** The refresh cookie of a browser: what the request brought, and what its answer is to change. */
export type CookieJar = {
  readonly refreshToken: Secret | null
  /** The request comes from a page of the platform's own origin, and a script of that page made it. */
  readonly sameOrigin: boolean
  change: { token: Secret; expiresAt: Date } | 'clear' | null
}

export const noCookies = (): CookieJar => ({ refreshToken: null, sameOrigin: false, change: null })

/** What every resolver is handed. */
export class GraphContext {
  readonly platform: Platform
  /** Ends when the caller goes away or the request's time is over. */
  readonly signal: AbortSignal
  readonly cookies: CookieJar
  /** SQL statements that this request has run; each is one round trip. */
  statements = 0
  /** Sensitive fields that were refused, by coordinate, each with its error. */
  readonly denials = new Map<string, AppError>()
  #actor: Actor
  #reader: Reader
  readonly #past: Reader[] = []

  constructor(
    platform: Platform,
    actor: Actor,
    signal: AbortSignal,
    cookies: CookieJar = noCookies(),
    /** Of a registered operation that was found in memory: each statement confirms that it still stands. */
    operationId?: string,
  ) {
    this.platform = platform
    this.signal = signal
    this.cookies = cookies
    this.#actor = actor
    this.#reader = this.#open(actor, operationId)
  }

  #open(actor: Actor, operationId?: string): Reader {
    return this.platform.database.openReader(actor, () => (this.statements += 1), operationId)
  }

  get actor(): Actor {
    return this.#actor
  }

  /** Reads as the actor; row level security filters every row, whatever a resolver forgot. */
  get tx(): Tx {
    return this.#reader.tx
  }

  /** From here on the request acts as somebody who just proved who they are (sign-in). */
  become(actor: Actor): void {
    this.#past.push(this.#reader)
    this.#reader = this.#open(actor)
    this.#actor = actor
  }

  /** Asks the database whether the credential still stands, where no statement of the request has asked it yet. */
  async confirm(): Promise<void> {
    if (isMember(this.#actor) && this.statements === 0) await this.#reader.confirm()
  }

  async close(): Promise<void> {
    await Promise.all([...this.#past, this.#reader].map((reader) => reader.close()))
  }
}
