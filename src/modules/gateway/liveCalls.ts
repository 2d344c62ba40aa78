import { z } from 'zod'
import { resource, type Platform } from '../../kernel/platform.ts'

/** A row of the request log that has just been written. */
export type LoggedCall = { id: string; orgId: string }

export const liveCallsChannel = 'mcp_calls'
// A notification holds less than 8000 bytes.
const idsAtOnce = 150

const message = z.object({ orgId: z.uuid(), ids: z.array(z.uuid()).max(idsAtOnce) })
type Message = z.infer<typeof message>

function* messages(rows: readonly LoggedCall[]): Generator<Message> {
  const byOrganization = new Map<string, string[]>()
  for (const { orgId, id } of rows) byOrganization.set(orgId, [...(byOrganization.get(orgId) ?? []), id])
  for (const [orgId, ids] of byOrganization)
    for (let at = 0; at < ids.length; at += idsAtOnce) yield { orgId, ids: ids.slice(at, at + idsAtOnce) }
}

/**
 * What tells every instance which rows were written, to be sent on `liveCallsChannel` by the statement that writes them, so
 * that it is heard when they can be read and not otherwise. Only ids travel: whoever listens reads the rows as themselves.
 */
export const announcements = ({ database }: Platform, rows: readonly LoggedCall[]): string[] =>
  database.announces ? Array.from(messages(rows), (each) => JSON.stringify(each)) : []

/** The same where there is no other instance, after the commit. */
export function deliver(platform: Platform, rows: readonly LoggedCall[]): void {
  if (!platform.database.announces) for (const each of messages(rows)) liveCalls(platform).take(each)
}

type Watcher = (ids: readonly string[]) => void

class LiveCalls {
  readonly #platform: Platform
  readonly #watchers = new Map<string, Set<Watcher>>()
  #listening: Promise<() => Promise<void>> | undefined

  constructor(platform: Platform) {
    this.#platform = platform
  }

  take({ orgId, ids }: Message): void {
    for (const watcher of this.#watchers.get(orgId) ?? []) watcher(ids)
  }

  /** Resolves once nothing that is written from now on is missed. */
  async watch(orgId: string, watcher: Watcher): Promise<() => void> {
    const watchers = this.#watchers.get(orgId) ?? new Set()
    this.#watchers.set(orgId, watchers)
    watchers.add(watcher)
    const leave = (): void => {
      watchers.delete(watcher)
      if (watchers.size === 0) this.#watchers.delete(orgId)
    }
    try {
      await this.#listen()
      return leave
    } catch (error) {
      leave()
      throw error
    }
  }

  async close(): Promise<void> {
    await (
      await this.#listening
    )?.()
  }

  async #listen(): Promise<void> {
    if (!this.#platform.database.announces) return
    this.#listening ??= this.#platform.database.listen(liveCallsChannel, (text) => {
      const { success, data } = message.safeParse(JSON.parse(text))
      if (success) this.take(data)
    })
    await this.#listening.catch((error: unknown) => {
      this.#listening = undefined
      throw error
    })
  }
}

export const liveCalls = resource((platform) => new LiveCalls(platform))
