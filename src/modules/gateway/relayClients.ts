import type { ClientCapabilities, LoggingLevel } from '@modelcontextprotocol/client'
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { InFlight } from '../../kernel/inFlight.ts'
import type { Place } from './place.ts'
import type { Resumable } from './relayResumption.ts'
import type { Json } from './types.ts'

const maxClients = 10_000
const maxSessionIdLength = 2000

/**
 * What a legacy client said of itself, carried in the session id that it sends with each request, so that any instance
 * can serve any request. It grants nothing: every request brings its own credential.
 */
export type ClientSession = { nonce: string; version: string; capabilities: ClientCapabilities }

const sessionShape = z.object({
  n: z.uuid(),
  v: z.string(),
  c: z.object({
    elicitation: z.record(z.string(), z.unknown()).optional(),
    sampling: z.record(z.string(), z.unknown()).optional(),
    roots: z.record(z.string(), z.unknown()).optional(),
  }),
})

export function mintSessionId(version: string, declared: unknown): string {
  const { success, data } = sessionShape.shape.c.safeParse(declared)
  const encode = (c: Json): string =>
    Buffer.from(JSON.stringify({ n: randomUUID(), v: version, c })).toString('base64url')
  const id = encode(success ? data : {})
  return id.length <= maxSessionIdLength ? id : encode({})
}

export function readSessionId(id: string): ClientSession | undefined {
  if (id.length > maxSessionIdLength) return undefined
  try {
    const { n, v, c } = sessionShape.parse(JSON.parse(Buffer.from(id, 'base64url').toString('utf8')))
    return { nonce: n, version: v, capabilities: c as ClientCapabilities }
  } catch {
    return undefined
  }
}

type Waiting = {
  answer: (result: Json) => void
  refuse: (error: { code: number; message: string; data?: unknown }) => void
}

/** What this instance remembers of a legacy client between two requests. All of it may be lost without harm to others. */
export type ClientMemory = {
  logLevel: LoggingLevel | undefined
  /** Resources that the client wants to hear about, with what ends it. */
  watched: Map<string, () => void>
  /** Requests at work, by their JSON-RPC id, to be cancelled by a later message. */
  running: InFlight<string | number, AbortController>
  /** What the client was asked, by our id of the question. */
  waiting: Map<string, Waiting>
  /** Streams that can be taken up again. */
  streams: Resumable
}

// The credential is part of it: a session id grants nothing, not even to another key of the same person.
const keyOf = ({ owner }: Place, { nonce }: ClientSession): string => JSON.stringify([owner, nonce])

/** The memories of many clients, each found only together with the caller whose it is; the oldest idle ones are lost. */
export class ClientMemories {
  readonly #memories = new Map<string, ClientMemory>()
  readonly #ended = new Set<string>()

  of(place: Place, session: ClientSession): ClientMemory {
    const key = keyOf(place, session)
    const memory = this.#memories.get(key) ?? {
      logLevel: undefined,
      watched: new Map(),
      running: new InFlight(),
      waiting: new Map(),
      streams: new Map(),
    }
    this.#memories.delete(key)
    this.#memories.set(key, memory)
    this.#makeRoom()
    return memory
  }

  /** Whether the client ended the session. Another instance does not know; there the session just goes on. */
  hasEnded(place: Place, session: ClientSession): boolean {
    return this.#ended.has(keyOf(place, session))
  }

  forget(place: Place, session: ClientSession): void {
    const key = keyOf(place, session)
    this.#ended.add(key)
    const [oldest] = this.#ended
    if (this.#ended.size > maxClients && oldest !== undefined) this.#ended.delete(oldest)
    const memory = this.#memories.get(key)
    this.#memories.delete(key)
    for (const stop of memory?.watched.values() ?? []) stop()
    for (const running of memory?.running.values() ?? []) running.abort()
  }

  #makeRoom(): void {
    if (this.#memories.size <= maxClients) return
    for (const [key, memory] of this.#memories) {
      if (memory.running.size > 0 || memory.waiting.size > 0) continue
      for (const stop of memory.watched.values()) stop()
      this.#memories.delete(key)
      return
    }
  }
}
