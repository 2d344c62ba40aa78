import type { CallToolResult, Progress, Tool } from '@modelcontextprotocol/client'
import type { Member } from '../../kernel/actor.ts'
import type { Asked, Reply } from '../../kernel/outboundExchange.ts'
import type { Secret } from '../../kernel/secret.ts'
import type { ToolAccess } from '../services/toolPolicy.ts'

export type Json = Record<string, unknown>

/** Bounds of one answer, for a `fetch` that has its own; others ignore them. */
export type AnswerBounds = { maxResponseBytes?: number; bodyTimeoutMs?: number }
/** `fetch`, or something shaped like it. It must honour `redirect: 'manual'` and `signal`. */
export type Fetch = (url: string | URL, init?: RequestInit & AnswerBounds) => Promise<Response>

/** The same for one who writes the request and reads the answer itself. */
export type Send<R extends Reply = Reply> = (url: string | URL, asked: Asked & AnswerBounds) => Promise<R>

/**
 * One upstream, as one caller may reach it. `key` names the pool entry: service id + service version + credential owner
 * and version; two callers with different credentials never share one.
 */
export type UpstreamTarget = {
  key: string
  /** The service, whoever calls it: what is known of its health is known to all its callers. Default: `key`. */
  upstream?: string
  endpoint: URL
  /** The only headers, beside those of the protocol, that the upstream ever receives. */
  headers: ReadonlyMap<string, Secret>
  /** For what has no address of its own: a process of the operator's. In place of the gateway's `fetch`. */
  reach?: Fetch
  /** Of a credential that can be renewed: whether `headers` now hold another value than the one that was refused with 401. */
  renew?: (refused: string) => Promise<boolean>
}

/** What is known of one tool: the fingerprint that was accepted, and another one that waits for it. */
export type Pin = { accepted: string | null; pending: string | null }
export type PinBook = ReadonlyMap<string, Pin>

/** All that the gateway knows about one caller at one service. */
export type Passage = {
  actor: Member
  orgId: string
  serviceId: string
  serviceSlug: string
  /** Whether the organisation believes the hints that this service gives about its own tools. */
  trusted: boolean
  /** What admins decided, by tool name. */
  toolAccess: ReadonlyMap<string, ToolAccess>
  target: UpstreamTarget
  /** What the tools said of themselves before, and what they say now that was not accepted. Absent: nobody keeps it. */
  pins?: PinBook
  /** What the organisation asks beyond the rules that always hold. */
  safety?: { blockSecrets: boolean; hideChangedTools: boolean }
  /** The tools that a collection chose; no other one is there. Absent: all of them. */
  selection?: ReadonlySet<string> | undefined
  /** Rejects once this caller may no longer be here, or the way has changed; for those who only listen. */
  confirm: () => Promise<void>
}

/** One of the services behind a gathering, or why it is not there. */
export type Gathered = { slug: string } & (
  { passage: Passage; error?: undefined } | { passage?: undefined; error: unknown }
)

/** Several services of an organisation that a client sees as one: all of them, or those of a collection. */
export type Gathering = {
  actor: Member
  orgId: string
  /** Names it among the caller's places. */
  key: string
  title: string
  description: string
  /** A collection is of tools alone. */
  toolsOnly: boolean
  /** In the order of their slugs. */
  all(): Promise<readonly Gathered[]>
  /** Throws `NOT_FOUND` for one that is not there, or the reason why it cannot be used. */
  one(slug: string): Promise<Passage>
}

export type CallStatus =
  | 'ok'
  | 'tool_error'
  | 'denied'
  /** Over a limit. */
  | 'limited'
  /** Not what the tool's input schema says. */
  | 'invalid_arguments'
  /** A credential was in the arguments or in the answer, where the organisation lets none pass. */
  | 'blocked'
  | 'upstream_error'
  | 'upstream_timeout'
  | 'cancelled'

/** What is known of one call once it has ended. `arguments` are as the caller sent them: redact before storing. */
export type CallRecord = {
  passage: Passage
  method: string
  /** The tool's or the prompt's name, or the resource's URI. */
  tool: string | null
  arguments: unknown
  status: CallStatus
  startedAt: Date
  durationMs: number
  requestId: string
}

export type ToolCall = {
  name: string
  arguments?: Record<string, unknown> | undefined
  requestId: string
  signal?: AbortSignal | undefined
  onProgress?: ((progress: Progress) => void) | undefined
}

export type HandleOptions = {
  /** Charged for the messages of a batch after its first, before any of them is answered. */
  charge?: (messages: number) => Promise<void>
}

export type Gateway = {
  /** The tools that this caller may call, in the upstream's order. */
  listTools(passage: Passage, options?: { signal?: AbortSignal }): Promise<Tool[]>
  /** Throws `AppError`: `NOT_FOUND` for a tool that is absent or not the caller's, `UPSTREAM_*`, `BAD_USER_INPUT`. */
  callTool(passage: Passage, call: ToolCall): Promise<CallToolResult>
  /** Streamable HTTP for ordinary MCP clients, both eras. The credential was checked before. */
  handle(at: Passage | Gathering, request: Request, text: string, options?: HandleOptions): Promise<Response>
  /** Forgets what is pooled for this upstream, for instance after its service or credential changed. */
  forget(targetKey: string): void
  close(): Promise<void>
}

export type GatewayLimits = {
  /** For the handshake with an upstream, all its round trips together. */
  connectMs: number
  /** For one request, counted anew at each sign of life; ten times as long at the most. */
  requestMs: number
  maxConcurrentPerTarget: number
  /** An upstream connection that nobody used for so long is closed. */
  poolIdleMs: number
  maxPool: number
  /** For one answer of an upstream, everything streamed before it included. */
  maxResultBytes: number
  /** For each service of a gathering, to contribute to one answer. */
  fanOutMs: number
}

/** `traceparent` goes on to the upstream, whatever the client sent. */
export type TracedCall = { traceparent: string; end: (status: CallStatus) => void }

export type GatewayOptions = {
  /** Refuses private, loopback and metadata addresses. */
  fetch: Fetch
  /** The same without the classes of `fetch`, for every call. Default: `fetch`. */
  send?: Send
  /** Resolves once the entry is durable; the answer waits for it. */
  record: (entry: CallRecord) => Promise<void>
  /** Resolves once it is written down what these tools say of themselves. */
  pin?: (passage: Passage, tools: readonly Tool[]) => Promise<void>
  admission?: {
    /** Resolves with what to call when the call has ended; rejects with `RATE_LIMITED`. */
    call: (passage: Passage) => Promise<() => void>
    /** The same for a stream on which a client only listens. */
    stream: (credentialId: string) => () => void
  }
  /** Begins to trace a call to an upstream. Absent: nobody does. */
  trace?: ((passage: Passage, call: { method: string; name: string | undefined }) => TracedCall) | undefined
  clock?: () => Date
  limits: GatewayLimits
  /** For events that no caller is told of. `error` is its name and code alone: the SDK quotes payloads in its messages. */
  onWarning?: (event: { message: string; target: string; error: string }) => void
}
