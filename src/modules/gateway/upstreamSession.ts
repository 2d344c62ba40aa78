import {
  CLIENT_CAPABILITIES_META_KEY,
  CLIENT_INFO_META_KEY,
  Client,
  LOG_LEVEL_META_KEY,
  PROTOCOL_VERSION_META_KEY,
  ProtocolError,
  StreamableHTTPClientTransport,
  type ClientCapabilities,
  type Implementation,
  type LoggingLevel,
  type PriorDiscovery,
  type ServerCapabilities,
} from '@modelcontextprotocol/client'
import { InFlight } from '../../kernel/inFlight.ts'
import { louder } from './relayLogging.ts'
import type { Fetch, GatewayLimits, Json, Send, UpstreamTarget } from './types.ts'
import { abandonable, Deadline, wait } from './upstreamDeadline.ts'
import { asUpstreamFailure, Cancelled, upstreamError, upstreamTimeout } from './upstreamErrors.ts'
import { exchange, post, type Ask, type Link, type Notification } from './upstreamExchange.ts'
import { boundedFetch, targetFetch, targetSend } from './upstreamHttp.ts'
import { standardHeaders } from './upstreamHeaders.ts'
import { Shared } from './upstreamShared.ts'

/** What the gateway tells upstreams about itself; nothing of the caller's client. */
export const gatewayIdentity: Implementation = { name: 'mcp-online-platform', version: '1' }

export type ChangeEvent =
  | { kind: 'tools' | 'prompts' | 'resources' }
  | { kind: 'resource'; uri: string; params: Json | undefined }
  /** The connection is gone; whoever listens has to open another. */
  | { kind: 'lost' }

export type SessionOptions = {
  target: UpstreamTarget
  fetch: Fetch
  send: Send
  limits: GatewayLimits
  /** What the callers of this session can do; a legacy upstream is told once, a modern one at each request. */
  capabilities: ClientCapabilities
  prior: PriorDiscovery | undefined
  onWarning: (message: string, error: unknown) => void
}

export type RequestOptions = {
  signal?: AbortSignal | undefined
  onNotification?: ((notification: Notification) => void) | undefined
  onRequest?: Ask | undefined
  onInterruption?: ((retryMs: number) => void) | undefined
  capabilities?: ClientCapabilities | undefined
  logLevel?: LoggingLevel | undefined
  /** The tool's input schema, from which a modern request's parameter headers are made. */
  inputSchema?: unknown
  /** The gateway's own place in the trace; whatever the client says of its own is not passed on then. */
  traceparent?: string | undefined
}

type Flight = { progressToken: unknown; onNotification: (notification: Notification) => void; onRequest: Ask }

const nobody: Ask = () => Promise.reject(new ProtocolError(-32601, 'Method not found'))
const cancelMs = 5000

/**
 * One connection to one upstream, shared by callers who have the same credential. The SDK's client negotiates the era,
 * keeps the session and hears about changes; each relayed request then has an HTTP exchange of its own.
 */
export class UpstreamSession {
  readonly era: 'legacy' | 'modern'
  readonly capabilities: ServerCapabilities
  readonly serverInfo: Implementation
  readonly instructions: string | undefined
  readonly verdict: PriorDiscovery
  readonly #client: Client
  readonly #transport: StreamableHTTPClientTransport
  readonly #link: Link
  readonly #options: SessionOptions
  readonly #flights = new InFlight<number, Flight>()
  readonly #watches = new Shared()
  readonly #listeners = new Set<(event: ChangeEvent) => void>()
  #level: LoggingLevel | undefined
  // Far from the SDK client's own ids, which share the session.
  #nextId = 1_000_000
  #closed = false

  private constructor(client: Client, transport: StreamableHTTPClientTransport, link: Link, options: SessionOptions) {
    this.#client = client
    this.#transport = transport
    this.#link = link
    this.#options = options
    const discover = client.getDiscoverResult()
    this.era = client.getProtocolEra() ?? 'legacy'
    this.verdict = this.era === 'modern' && discover ? { kind: 'modern', discover } : { kind: 'legacy' }
    this.capabilities = client.getServerCapabilities() ?? {}
    this.serverInfo = client.getServerVersion() ?? { name: 'unnamed', version: '0' }
    this.instructions = client.getInstructions()
  }

  static async open(options: SessionOptions): Promise<UpstreamSession> {
    const { target, limits, capabilities, prior } = options
    const fetch = targetFetch(target, target.reach ?? options.fetch, limits.maxResultBytes)
    const transport = new StreamableHTTPClientTransport(target.endpoint, {
      fetch: boundedFetch(fetch, limits.maxResultBytes),
    })
    const client = new Client(gatewayIdentity, { capabilities, versionNegotiation: { mode: 'auto' } })
    client.onerror = (error) => options.onWarning('upstream connection', error)
    const opened: { session?: UpstreamSession } = {}
    // Set before the handshake: some servers ask for roots as soon as they are initialized.
    client.fallbackRequestHandler = ({ method, params }) => {
      const request = { method, params }
      return opened.session ? opened.session.#askSomebody(request) : nobody(request)
    }
    const hear = (notification: Notification): void => {
      if (opened.session) opened.session.#hear(notification)
    }
    client.fallbackNotificationHandler = (notification) => Promise.resolve(hear(notification))
    client.setNotificationHandler('notifications/progress', hear)
    const signal = AbortSignal.timeout(limits.connectMs)
    try {
      await abandonable(
        client.connect(transport, { timeout: limits.connectMs, signal, ...(prior ? { prior } : {}) }),
        signal,
      )
    } catch (error) {
      void transport.close().catch(() => undefined)
      throw signal.aborted ? upstreamTimeout(error) : asUpstreamFailure(error)
    }
    const version = client.getNegotiatedProtocolVersion()
    const headers = {
      ...(version === undefined ? {} : { 'mcp-protocol-version': version }),
      ...(transport.sessionId === undefined ? {} : { 'mcp-session-id': transport.sessionId }),
    }
    const session = new UpstreamSession(
      client,
      transport,
      {
        endpoint: target.endpoint,
        send: targetSend(target, target.reach ?? options.send, limits.maxResultBytes),
        maxBytes: limits.maxResultBytes,
        headers,
      },
      options,
    )
    opened.session = session
    void session.#listen().catch((error: unknown) => options.onWarning('upstream change events', error))
    return session
  }

  /** Relays one request. Throws the upstream's own `ProtocolError`, `SessionExpired`, `Cancelled` or an `AppError`. */
  async request(method: string, params: Json, options: RequestOptions = {}): Promise<Json> {
    const id = this.#nextId++
    const deadline = new Deadline(this.#options.limits.requestMs, options.signal)
    const meta = params['_meta'] as Json | undefined
    const onNotification = (notification: Notification): void => {
      deadline.touch()
      options.onNotification?.(withToken(notification, meta?.['progressToken']))
    }
    const ask = options.onRequest ?? nobody
    const onRequest: Ask = (request) => deadline.whilePaused(() => ask(request))
    this.#flights.set(id, { progressToken: id, onNotification, onRequest })
    try {
      if (options.logLevel !== undefined) await this.hearFrom(options.logLevel)
      const outgoing = this.#enveloped(id, params, options)
      const headers = {
        ...(this.era === 'modern' ? standardHeaders(method, outgoing, options.inputSchema) : {}),
        ...(options.traceparent === undefined ? {} : { traceparent: options.traceparent }),
      }
      const message = { id, method, ...(Object.keys(outgoing).length > 0 ? { params: outgoing } : {}) }
      return await abandonable(
        exchange(this.#link, message, {
          signal: deadline.signal,
          headers,
          onNotification,
          onRequest,
          onInterruption: options.onInterruption,
        }),
        deadline.signal,
      )
    } catch (error) {
      if (deadline.signal.aborted) this.#cancel(id, deadline.signal.reason)
      throw error
    } finally {
      deadline.stop()
      this.#flights.delete(id)
    }
  }

  onChange(listener: (event: ChangeEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Makes a legacy upstream send log messages from this level up, if it does not already. */
  async hearFrom(level: LoggingLevel): Promise<void> {
    if (this.era === 'modern' || !this.capabilities.logging || louder(level, this.#level)) return
    await this.request('logging/setLevel', { level })
    this.#level = level
  }

  /** Sends away those who listen; calls that are running go on. */
  dismiss(): void {
    this.#emit({ kind: 'lost' })
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#emit({ kind: 'lost' })
    this.#listeners.clear()
    if (this.#transport.sessionId !== undefined)
      await abandonable(this.#transport.terminateSession(), AbortSignal.timeout(1000)).catch(() => undefined)
    await this.#client.close().catch(() => undefined)
  }

  /** Our own progress tokens, because those of several callers could be the same. */
  #enveloped(id: number, params: Json, { capabilities, logLevel, traceparent }: RequestOptions): Json {
    const given = anonymousMeta((params['_meta'] ?? {}) as Json)
    const meta = {
      ...given,
      ...('progressToken' in given ? { progressToken: id } : {}),
      ...(traceparent === undefined ? {} : { traceparent }),
    }
    if (this.era === 'legacy')
      return '_meta' in params || traceparent !== undefined ? { ...params, _meta: meta } : params
    const envelope = {
      [PROTOCOL_VERSION_META_KEY]: this.#client.getNegotiatedProtocolVersion(),
      [CLIENT_INFO_META_KEY]: gatewayIdentity,
      [CLIENT_CAPABILITIES_META_KEY]: capabilities ?? {},
      ...(logLevel === undefined ? {} : { [LOG_LEVEL_META_KEY]: logLevel }),
    }
    return { ...params, _meta: { ...meta, ...envelope } }
  }

  /** In the legacy era cancelling is a message of its own; in the modern era closing the stream is enough. */
  #cancel(id: number, reason: unknown): void {
    if (this.era === 'modern' || this.#closed) return
    const params = { requestId: id, reason: reason instanceof Cancelled ? 'cancelled by the client' : 'timed out' }
    void post(this.#link, { method: 'notifications/cancelled', params }, AbortSignal.timeout(cancelMs))
      .then((response) => response.body?.cancel())
      .catch(() => undefined)
  }

  /** What came outside a request's own stream: changes for everybody, progress for the request that it names. */
  #hear({ method, params }: Notification): void {
    const kind = Object.hasOwn(changeKinds, method) ? changeKinds[method] : undefined
    if (kind) this.#emit({ kind })
    else if (method === 'notifications/resources/updated' && typeof params?.['uri'] === 'string')
      this.#emit({ kind: 'resource', uri: params['uri'], params })
    else if (method === 'notifications/progress')
      this.#flights.get(Number(params?.['progressToken']))?.onNotification({ method, params })
  }

  /** A request that came outside any stream is answered only where it is certain whom it is for. */
  #askSomebody(request: { method: string; params?: Json | undefined }): Promise<Json> {
    const [only, ...others] = this.#flights.values()
    return only && others.length === 0 ? only.onRequest(request) : nobody(request)
  }

  #emit(event: ChangeEvent): void {
    for (const listener of this.#listeners) listener(event)
  }

  /**
   * A modern upstream tells of changes only on a stream that was asked for. When it breaks off, what was missed is
   * unknown, so everything counts as changed; where it is refused, cached lists just age.
   */
  async #listen(): Promise<void> {
    const { tools, prompts, resources } = this.capabilities
    const filter = {
      ...(tools?.listChanged ? { toolsListChanged: true as const } : {}),
      ...(prompts?.listChanged ? { promptsListChanged: true as const } : {}),
      ...(resources?.listChanged ? { resourcesListChanged: true as const } : {}),
    }
    if (this.era === 'legacy' || Object.keys(filter).length === 0) return
    for (let pauseMs = relistenMs; !this.#closed; pauseMs = Math.min(pauseMs * 2, maxRelistenMs)) {
      const since = Date.now()
      const subscription = await this.#client.listen(filter)
      if ((await subscription.closed) === 'local' || this.#closed) return
      for (const kind of ['tools', 'prompts', 'resources'] as const) this.#emit({ kind })
      if (Date.now() - since > maxRelistenMs) pauseMs = relistenMs
      await wait(pauseMs)
    }
  }

  /** Hears about one resource until the last of those who asked for it has left. */
  watch(uri: string): Promise<() => void> {
    return this.#watches.join(uri, () => this.#watch(uri))
  }

  async #watch(uri: string): Promise<() => void> {
    if (this.era === 'legacy') {
      await this.request('resources/subscribe', { uri })
      return () => void this.request('resources/unsubscribe', { uri }).catch(() => undefined)
    }
    const subscription = await this.#client.listen({ resourceSubscriptions: [uri] })
    if (!subscription.honoredFilter.resourceSubscriptions?.includes(uri)) {
      void subscription.close().catch(() => undefined)
      throw upstreamError('The service does not offer subscriptions.')
    }
    return () => void subscription.close().catch(() => undefined)
  }
}

/** What a client tells of its trace (SEP-414), without what could carry more than ids: its baggage and its vendors' state. */
function anonymousMeta({ traceparent, tracestate: _, baggage: __, ...rest }: Json): Json {
  const plain = typeof traceparent === 'string' && /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/.test(traceparent)
  return plain ? { ...rest, traceparent } : rest
}

const relistenMs = 1000
const maxRelistenMs = 60_000

const changeKinds: Readonly<Record<string, 'tools' | 'prompts' | 'resources'>> = {
  'notifications/tools/list_changed': 'tools',
  'notifications/prompts/list_changed': 'prompts',
  'notifications/resources/list_changed': 'resources',
}

function withToken(notification: Notification, progressToken: unknown): Notification {
  if (notification.method !== 'notifications/progress' || progressToken === undefined) return notification
  return { ...notification, params: { ...notification.params, progressToken } }
}
