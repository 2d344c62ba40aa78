import { randomUUID } from 'node:crypto'
import { Conversation, type Flight } from './hostedConversation.ts'
import { HostedProcess, type CatalogueEntry, type Ending, type Tenancy } from './hostedProcess.ts'
import type { RunningProcess } from './hostedFamily.ts'
import { methodNotFound } from './relayErrors.ts'
import { EventStream } from './relayStream.ts'
import type { Fetch, Json } from './types.ts'
import { abandonable } from './upstreamDeadline.ts'
import { upstreamError } from './upstreamErrors.ts'
import type { Era } from './upstreamVerdicts.ts'

type Options = {
  entry: CatalogueEntry
  tenancy: Tenancy
  era: Era
  onSaid: (text: string) => void
  onEnd: (why: Ending) => void
}

/**
 * What a process may ask of a client. Never its roots: servers take them for folders that they may open, and which ones
 * those are is the operator's choice.
 */
const askable = { elicitation: {}, sampling: {} }

/**
 * A process that answers as an upstream over Streamable HTTP would, so that everything else about upstreams holds for it.
 * It is initialized once; each connection of the gateway then has a session of its own on it.
 */
export class HostedService {
  readonly fetch: Fetch = (_, init) => this.#serve(init)
  readonly era: Era
  readonly #process: HostedProcess
  readonly #conversation: Conversation
  readonly #idleMs: number
  readonly #id = randomUUID()
  readonly #streams = new Set<() => void>()
  #greeting: Promise<Json> | undefined
  #idle: NodeJS.Timeout | undefined
  #lastUsedAt = Date.now()

  static async start({ entry, tenancy, era, onSaid, onEnd }: Options): Promise<HostedService> {
    const held: { service?: HostedService; why?: Ending } = {}
    const process = await HostedProcess.start(entry, tenancy, {
      onSaid,
      onMessage: (message) => held.service && held.service.#conversation.hear(message),
      onEnd: (why) => {
        if (held.service) held.service.#end()
        onEnd(why)
      },
    })
    held.service = new HostedService(process, entry, era)
    return held.service
  }

  private constructor(process: HostedProcess, entry: CatalogueEntry, era: Era) {
    this.#process = process
    this.#conversation = new Conversation(process)
    this.#idleMs = entry.limits.idleSeconds * 1000
    this.era = era
    this.#rest()
  }

  /** Whether it has ended, or is about to. */
  get ending(): boolean {
    return this.#process.ending
  }

  get busy(): boolean {
    return this.#conversation.busy > 0
  }

  get lastUsedAt(): number {
    return this.#lastUsedAt
  }

  judge(table: readonly RunningProcess[]): void {
    this.#process.judge(table)
  }

  stop(why: Ending): Promise<void> {
    return this.#process.stop(why)
  }

  async #serve({ method, headers, body, signal }: RequestInit = {}): Promise<Response> {
    const session = new Headers(headers).get('mcp-session-id')
    if (this.ending || (session !== null && !session.startsWith(this.#id))) return new Response(null, { status: 404 })
    if (method === 'GET') return this.era === 'legacy' ? this.#events(signal) : new Response(null, { status: 405 })
    if (method !== 'POST') return new Response(null, { status: 200 })
    this.#rest()
    const message = JSON.parse(typeof body === 'string' ? body : '') as Json
    if (message['method'] === undefined) this.#conversation.answer(message)
    else if (message['id'] !== undefined) return this.#request(message, session, signal)
    // It was said once, after the one greeting.
    else if (message['method'] !== 'notifications/initialized') this.#conversation.notify(message)
    return new Response(null, { status: 202 })
  }

  #request(message: Json, session: string | null, signal: AbortSignal | null | undefined): Promise<Response> {
    const initialize = message['method'] === 'initialize'
    const inOtherEra = this.era === 'modern' ? initialize || session !== null : session === null && !initialize
    if (inOtherEra) return Promise.resolve(refusal(message))
    if (initialize) return this.#initialize(message, signal)
    return this.#relay(message, signal)
  }

  async #initialize({ id, params }: Json, signal: AbortSignal | null | undefined): Promise<Response> {
    this.#greeting ??= this.#greet({ ...(params as Json), capabilities: askable })
    const answer = await abandonable(this.#greeting, signal ?? undefined)
    return Response.json({ ...answer, id }, { headers: { 'mcp-session-id': `${this.#id}.${randomUUID()}` } })
  }

  async #greet(params: Json): Promise<Json> {
    const answer = await new Promise<Json>((finish, fail) => {
      const flight: Flight = { id: 0, progressToken: undefined, say: () => undefined, finish, fail }
      this.#conversation.begin({ jsonrpc: '2.0', method: 'initialize', params }, flight)
    })
    if (answer['error'] === undefined)
      this.#conversation.notify({ jsonrpc: '2.0', method: 'notifications/initialized' })
    return answer
  }

  /** Plain JSON when the answer is all there is to say, and a stream from the first thing that is said before it. */
  #relay(message: Json, signal: AbortSignal | null | undefined): Promise<Response> {
    return new Promise((resolve, reject) => {
      let stream: EventStream | undefined
      const done = (): void => {
        signal?.removeEventListener('abort', leave)
        this.#rest()
      }
      const leave = (): void => {
        abandon()
        stream?.close()
        done()
        reject(signal?.reason instanceof Error ? signal.reason : upstreamError('The caller gave up.'))
      }
      const meta = ((message['params'] ?? {}) as Json)['_meta'] as Json | undefined
      const abandon = this.#conversation.begin(message, {
        id: message['id'],
        progressToken: meta?.['progressToken'],
        say: (said) => {
          if (!stream) resolve((stream = new EventStream(leave)).response)
          stream.send(said)
        },
        finish: (answer) => {
          done()
          if (!stream) return resolve(Response.json(answer))
          stream.send(answer)
          stream.close()
        },
        fail: (error) => {
          done()
          stream?.close()
          reject(error)
        },
      })
      if (signal?.aborted) leave()
      else signal?.addEventListener('abort', leave, { once: true })
    })
  }

  #events(signal: AbortSignal | null | undefined): Response {
    const leave = (): void => {
      stop()
      signal?.removeEventListener('abort', leave)
      stream.close()
      this.#streams.delete(leave)
    }
    const stream = new EventStream(leave)
    const stop = this.#conversation.listen((message) => stream.send(message))
    this.#streams.add(leave)
    signal?.addEventListener('abort', leave, { once: true })
    return stream.response
  }

  #rest(): void {
    clearTimeout(this.#idle)
    this.#lastUsedAt = Date.now()
    if (this.ending) return
    this.#idle = setTimeout(() => {
      if (this.busy) this.#rest()
      else void this.stop('idle')
    }, this.#idleMs).unref()
  }

  #end(): void {
    clearTimeout(this.#idle)
    this.#conversation.end()
    for (const leave of [...this.#streams]) leave()
  }
}

/** What a server of one era says to the other's requests; the gateway then uses the right one. */
const refusal = ({ id, method }: Json): Response => {
  const code = method === 'initialize' || method === 'server/discover' ? methodNotFound : unsupportedProtocolVersion
  const error = { code, message: 'Method not found' }
  return Response.json({ jsonrpc: '2.0', id, error }, { status: code === methodNotFound ? 200 : 400 })
}

const unsupportedProtocolVersion = -32022
