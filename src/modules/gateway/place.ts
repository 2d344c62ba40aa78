import type { Implementation, ServerCapabilities, Tool } from '@modelcontextprotocol/client'
import type { LoggingLevel } from '@modelcontextprotocol/client'
import type { Downstream, Relay, RelayedRequest } from './relay.ts'
import type { Parking } from './relayParking.ts'
import type { Json, Passage } from './types.ts'
import type { Caller, UpstreamPool } from './upstream.ts'
import type { ChangeEvent } from './upstreamSession.ts'

/** What is there for as long as a client needs it: what it says of itself, and what changes. */
export type Presence = {
  readonly serverInfo: Implementation
  readonly capabilities: ServerCapabilities
  readonly instructions: string | undefined
  onChange(listener: (event: ChangeEvent) => void): () => void
  watch(uri: string): Promise<() => void>
  hearFrom(level: LoggingLevel): Promise<void>
  release(): void
}

/** Where an MCP client is connected to: one service, or several that look like one. */
export type Place = {
  /** The caller, by the very credential, at this place. What is remembered under it is nobody else's. */
  readonly owner: string
  /** The person; what an upstream asks of one is never asked of another. */
  readonly userId: string
  open(caller: Caller, signal?: AbortSignal, purpose?: 'describe' | 'answer'): Promise<Presence>
  answer(request: RelayedRequest, downstream: Downstream): Promise<Json>
  /** One tool, if there is one of this name that the caller may call. */
  permittedTool(name: string, caller: Caller, signal?: AbortSignal): Promise<Tool | undefined>
  /** Resolves as long as the caller may still be here; for those who only listen. */
  confirm(): Promise<void>
}

export type Means = { relay: Relay; pool: UpstreamPool; parking: Parking }

export const ownerOf = ({ actor, orgId }: Pick<Passage, 'actor' | 'orgId'>, where: string): string =>
  JSON.stringify([orgId, actor.userId, actor.credentialId, where])

/** One service. */
export function servicePlace({ relay, pool, parking }: Means, passage: Passage): Place {
  return {
    owner: ownerOf(passage, passage.serviceId),
    userId: passage.actor.userId,
    open: async (caller, signal) => {
      const { connection, release } = await pool.hold(passage.target, caller, signal)
      const { session } = connection
      return {
        serverInfo: session.serverInfo,
        capabilities: session.capabilities,
        instructions: session.instructions,
        onChange: (listener) => session.onChange(listener),
        watch: (uri) => session.watch(uri),
        hearFrom: (level) => session.hearFrom(level),
        release,
      }
    },
    answer: (request, downstream) =>
      downstream.multiRoundTrip
        ? parking.answer(passage, request, downstream, relay)
        : relay.answer(passage, request, downstream),
    permittedTool: (name, caller, signal) => relay.findTool(passage, name, { caller, signal }),
    confirm: () => passage.confirm(),
  }
}
