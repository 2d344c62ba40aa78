import type { Actor } from '../kernel/actor.ts'
import type { Reader, Tx } from '../kernel/database/door.ts'
import type { Platform } from '../kernel/platform.ts'

/** What every resolver is handed. */
export class GraphContext {
  readonly platform: Platform
  /** Ends when the caller goes away or the request's time is over. */
  readonly signal: AbortSignal
  /** SQL statements that this request has run; each is one round trip. */
  statements = 0
  #actor: Actor
  #reader: Reader
  readonly #past: Reader[] = []

  private constructor(platform: Platform, signal: AbortSignal, actor: Actor, reader: Reader) {
    this.platform = platform
    this.signal = signal
    this.#actor = actor
    this.#reader = reader
  }

  static async open(platform: Platform, actor: Actor, signal: AbortSignal): Promise<GraphContext> {
    let context: GraphContext | null = null
    const reader = await platform.database.openReader(actor, () => context && (context.statements += 1))
    return (context = new GraphContext(platform, signal, actor, reader))
  }

  get actor(): Actor {
    return this.#actor
  }

  /** Reads as the actor; row level security filters every row, whatever a resolver forgot. */
  get tx(): Tx {
    return this.#reader.tx
  }

  /** From here on the request acts as somebody who just proved who they are (sign-in). */
  async become(actor: Actor): Promise<void> {
    const reader = await this.platform.database.openReader(actor, () => (this.statements += 1))
    this.#past.push(this.#reader)
    this.#reader = reader
    this.#actor = actor
  }

  async close(): Promise<void> {
    await Promise.all([...this.#past, this.#reader].map((reader) => reader.close()))
  }
}
