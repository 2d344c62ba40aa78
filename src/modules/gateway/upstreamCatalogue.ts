import type { Tool } from '@modelcontextprotocol/client'
import { z } from 'zod'
import type { Json } from './types.ts'
import { upstreamError } from './upstreamErrors.ts'
import type { UpstreamSession } from './upstreamSession.ts'

/** For upstreams that say nothing about how long their list stays fresh. */
const defaultFreshMs = 60_000
/** However long an upstream calls its list fresh. */
const maxFreshMs = 3_600_000
/** How old the list may be that a call is judged by, even if its upstream calls it stale at once, as `ttlMs: 0` does. */
const judgeByMs = 60_000
/** How soon after the last listing an unknown name is worth another one. */
const patienceMs = 1000
const maxPages = 64

const page = z.looseObject({
  tools: z.array(
    z.looseObject({
      name: z.string().min(1),
      inputSchema: z.looseObject({}),
      annotations: z.looseObject({ readOnlyHint: z.boolean().optional() }).optional(),
    }),
  ),
  nextCursor: z.string().optional(),
  ttlMs: z.number().optional(),
})

type Listing = { tools: readonly Tool[]; byName: ReadonlyMap<string, Tool>; fetchedAt: number; freshUntil: number }

/** The tools of one upstream session, listed when needed and never more than once at a time. */
export class ToolCatalogue {
  readonly #session: UpstreamSession
  readonly #now: () => number
  #listing: Listing | undefined
  #pending: Promise<Listing> | undefined
  #generation = 0

  constructor(session: UpstreamSession, now: () => number) {
    this.#session = session
    this.#now = now
    session.onChange(({ kind }) => {
      if (kind === 'tools') this.expire()
    })
  }

  expire(): void {
    this.#generation++
    this.#listing = undefined
    this.#pending = undefined
  }

  /** All tools, as fresh as the upstream asks for. */
  async list(): Promise<Listing> {
    const held = this.#listing
    return held && this.#now() < held.freshUntil ? held : this.#refresh()
  }

  /** One tool, to judge and make a call by: no listing for a name that a recent listing had. */
  async find(name: string): Promise<Tool | undefined> {
    const held = this.#listing
    if (held) {
      const age = this.#now() - held.fetchedAt
      const known = held.byName.get(name)
      if (known && (age < judgeByMs || this.#now() < held.freshUntil)) return known
      if (!known && age < patienceMs) return undefined
    }
    return (await this.#refresh()).byName.get(name)
  }

  #refresh(): Promise<Listing> {
    if (this.#pending) return this.#pending
    const generation = this.#generation
    const pending = this.#fetch().then((listing) => {
      if (generation === this.#generation) this.#listing = listing
      return listing
    })
    this.#pending = pending
    const done = (): void => {
      if (this.#pending === pending) this.#pending = undefined
    }
    pending.then(done, done)
    return pending
  }

  async #fetch(): Promise<Listing> {
    const tools: Tool[] = []
    let cursor: string | undefined
    let ttlMs: number | undefined
    if (this.#session.capabilities.tools)
      for (let pages = 0; ; pages++) {
        const parsed = await this.#page(cursor)
        ttlMs ??= parsed.ttlMs
        tools.push(...(parsed.tools as unknown as Tool[]))
        if (parsed.nextCursor === undefined || parsed.nextCursor === cursor) break
        if (pages >= maxPages) throw upstreamError('The list of tools of the service does not end.')
        cursor = parsed.nextCursor
      }
    const now = this.#now()
    const freshMs = Math.min(ttlMs ?? defaultFreshMs, maxFreshMs)
    // The first of two tools with one name is the one that is listed, judged and called by.
    const byName = new Map<string, Tool>()
    for (const tool of tools) if (!byName.has(tool.name)) byName.set(tool.name, tool)
    return { tools: [...byName.values()], byName, fetchedAt: now, freshUntil: now + freshMs }
  }

  async #page(cursor: string | undefined): Promise<z.infer<typeof page>> {
    const params: Json = cursor === undefined ? {} : { cursor }
    const { success, data, error } = page.safeParse(await this.#session.request('tools/list', params))
    if (!success) throw upstreamError('The list of tools of the service does not follow the protocol.', error)
    return data
  }
}
