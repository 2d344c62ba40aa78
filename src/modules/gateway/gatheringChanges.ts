import { qualifiedUri } from './gatheringNames.ts'
import type { Gathered, Gathering } from './types.ts'
import type { Caller, Hold, UpstreamPool } from './upstream.ts'
import type { ChangeEvent } from './upstreamSession.ts'

/** How often services are looked for that have come, gone or become well again. */
const surveyMs = 30_000
const kinds = ['tools', 'prompts', 'resources'] as const

/** What changes at any service of a gathering, told under its name; also that one has come or gone. */
export class GatheringChanges {
  readonly #pool: UpstreamPool
  readonly #gathering: Gathering
  readonly #caller: Caller
  readonly #held = new Map<string, { key: string; end: () => void }>()
  #listener: ((event: ChangeEvent) => void) | undefined
  #timer: NodeJS.Timeout | undefined
  #ended = false

  constructor(pool: UpstreamPool, gathering: Gathering, caller: Caller) {
    this.#pool = pool
    this.#gathering = gathering
    this.#caller = caller
  }

  /** Nothing is connected before somebody listens. */
  listen(listener: (event: ChangeEvent) => void): () => void {
    this.#listener = listener
    void this.#survey(false)
    this.#timer = setInterval(() => void this.#survey(true), surveyMs).unref()
    return () => this.end()
  }

  end(): void {
    this.#ended = true
    this.#listener = undefined
    clearInterval(this.#timer)
    for (const { end } of this.#held.values()) end()
    this.#held.clear()
  }

  async #survey(tell: boolean): Promise<void> {
    const members = await this.#gathering.all().catch(() => undefined)
    // Whether the caller may still be here is asked, and answered, elsewhere.
    if (!members || this.#ended) return
    const wanted = new Map(members.map((member) => [member.slug, member]))
    const before = new Map([...this.#held].map(([slug, { key }]) => [slug, key]))
    for (const [slug, { key, end }] of this.#held)
      if (wanted.get(slug)?.passage?.target.key !== key) {
        this.#held.delete(slug)
        end()
      }
    await Promise.all(members.map((member) => this.#hold(member)))
    const after = new Map([...this.#held].map(([slug, { key }]) => [slug, key]))
    const same = before.size === after.size && [...before].every(([slug, key]) => after.get(slug) === key)
    if (tell && !same) this.#tellAll()
  }

  async #hold({ slug, passage }: Gathered): Promise<void> {
    if (!passage || this.#held.has(slug)) return
    const hold = await this.#pool.hold(passage.target, this.#caller).catch((): Hold | undefined => undefined)
    if (!hold) return
    if (this.#ended || this.#held.has(slug)) return hold.release()
    const stop = hold.connection.session.onChange((event) => {
      if (event.kind === 'lost') this.#lost(slug)
      else this.#listener?.(event.kind === 'resource' ? this.#named(slug, event) : event)
    })
    const end = (): void => {
      stop()
      hold.release()
    }
    this.#held.set(slug, { key: passage.target.key, end })
  }

  #named(slug: string, event: Extract<ChangeEvent, { kind: 'resource' }>): ChangeEvent {
    const uri = qualifiedUri(slug, event.uri)
    return { ...event, uri, params: event.params && { ...event.params, uri } }
  }

  /** What was missed is unknown, so everything counts as changed; the next survey connects again. */
  #lost(slug: string): void {
    this.#held.get(slug)?.end()
    this.#held.delete(slug)
    this.#tellAll()
  }

  #tellAll(): void {
    const listener = this.#listener
    for (const kind of kinds) if (listener && (kind === 'tools' || !this.#gathering.toolsOnly)) listener({ kind })
  }
}
