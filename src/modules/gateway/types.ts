import type { CallToolResult, Progress, Tool } from '@modelcontextprotocol/client'
import type { Member } from '../../kernel/actor.ts'
import type { Secret } from '../../kernel/secret.ts'
import type { ToolAccess } from '../services/toolPolicy.ts'

export type Json = Record<string, unknown>

/** Bounds of one answer, for a `fetch` that has its own; others ignore them. */
export type AnswerBounds = { maxResponseBytes?: number; bodyTimeoutMs?: number }
/** `fetch`, or something shaped like it. It must honour `redirect: 'manual'` and `signal`. */
export type Fetch = (url: string | URL, init?: RequestInit & AnswerBounds) => Promise<Response>

/**
 * One upstream, as one caller may reach it. `key` names the pool entry: service id + service version + credential owner
 * and version; two callers with different credentials never share one.
 */
export type UpstreamTarget = {
  key: string
  endpoint: URL
  /** The only headers, beside those of the protocol, that the upstream ever receives. */
  headers: ReadonlyMap<string, Secret>
  /** For what has no address of its own: a process of the operator's. In place of the gateway's `fetch`. */
  reach?: Fetch
  /** Of a credential that can be renewed: whether `headers` now hold another value than the one that was refused with 401. */
  renew?: (refused: string) => Promise<boolean>
}

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
}

export type CallStatus = 'ok' | 'tool_error' | 'denied' | 'upstream_error' | 'upstream_timeout' | 'cancelled'

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

export type Gateway = {
  /** The tools that this caller may call, in the upstream's order. */
  listTools(passage: Passage, options?: { signal?: AbortSignal }): Promise<Tool[]>
  /** Throws `AppError`: `NOT_FOUND` for a tool that is absent or not the caller's, `UPSTREAM_*`, `BAD_USER_INPUT`. */
  callTool(passage: Passage, call: ToolCall): Promise<CallToolResult>
  /** Streamable HTTP for ordinary MCP clients, both eras. The credential was checked before. */
  handle(passage: Passage, request: Request): Promise<Response>
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
}

export type GatewayOptions = {
  /** Refuses private, loopback and metadata addresses. */
  fetch: Fetch
  /** Resolves once the entry is durable; the answer waits for it. */
  record: (entry: CallRecord) => Promise<void>
  clock?: () => Date
  limits: GatewayLimits
  /** For events that no caller is told of. `error` is its name and code alone: the SDK quotes payloads in its messages. */
  onWarning?: (event: { message: string; target: string; error: string }) => void
}
