import type { ClientCapabilities, PriorDiscovery } from '@modelcontextprotocol/client'
import { ProtocolError } from '@modelcontextprotocol/client'
import { AppError } from '../../kernel/errors.ts'
import type { Fetch, GatewayLimits, GatewayOptions, Json, UpstreamTarget } from './types.ts'
import { ToolCatalogue } from './upstreamCatalogue.ts'
import { abandonable, signalled } from './upstreamDeadline.ts'
import { asUpstreamFailure, SessionExpired } from './upstreamErrors.ts'
import { Gate } from './upstreamGate.ts'
import { UpstreamSession, type RequestOptions } from './upstreamSession.ts'

/** How long a verdict about an upstream's era stands: one that has been upgraded still answers the old handshake. */
const verdictMs = 900_000
const maxVerdicts = 10_000
/** 2026-07-28: the upstream does not speak the revision it was thought to. It has not looked at the request. */
const unsupportedProtocolVersion = -32022

export type Connection = { session: UpstreamSession; tools: ToolCatalogue }
/** A connection that stays open until it is released. */
export type Hold = { connection: Connection; release: () => void }
type Entry = {
  key: string
  target: string
  opening: Promise<Connection>
  users: number
  idle: NodeJS.Timeout | undefined
  retired: boolean
}
type Verdict = { prior: PriorDiscovery; at: number }

/**
 * The connections to all upstreams. One for each target, and on legacy upstreams, which are told once what their client
 * can do, one for each set of client capabilities; opened at the first use, closed when idle, bounded in number.
 */
export class UpstreamPool {
  readonly #fetch: Fetch
  readonly #limits: GatewayLimits
  readonly #now: () => number
  readonly #onWarning: GatewayOptions['onWarning']
  // In the order of their last use.
  readonly #entries = new Map<string, Entry>()
  readonly #verdicts = new Map<string, Verdict>()
  readonly #gates = new Map<string, { gate: Gate; users: number }>()
  #closed = false

  constructor({
    fetch,
    limits,
    clock = () => new Date(),
    onWarning,
  }: Pick<GatewayOptions, 'fetch' | 'limits' | 'clock' | 'onWarning'>) {
    this.#fetch = fetch
    this.#limits = limits
    this.#now = () => clock().getTime()
    this.#onWarning = onWarning
  }

  get size(): number {
    return this.#entries.size
  }

  /** Does something with a connection that stands, and once more with a new one if the upstream had forgotten it. */
  async use<T>(
    target: UpstreamTarget,
    capabilities: ClientCapabilities,
    work: (connection: Connection) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    try {
      return await this.#once(target, capabilities, work, signal)
    } catch (error) {
      const outdated = error instanceof ProtocolError && error.code === unsupportedProtocolVersion
      if (!outdated && !(error instanceof SessionExpired)) throw asUpstreamFailure(error)
    }
    // Neither answer comes from an upstream that has begun to work, so saying it again is safe for any method.
    try {
      return await this.#once(target, capabilities, work, signal)
    } catch (error) {
      throw asUpstreamFailure(error)
    }
  }

  /** One request through the gate of its target. */
  request(target: UpstreamTarget, method: string, params: Json, options: RequestOptions = {}): Promise<Json> {
    const { capabilities = {}, signal } = options
    return this.gated(target.key, signal, () =>
      this.use(target, capabilities, ({ session }) => session.request(method, params, options), signal),
    )
  }

  async hold(target: UpstreamTarget, capabilities: ClientCapabilities, signal?: AbortSignal): Promise<Hold> {
    const released = signalled()
    return new Promise<Hold>((resolve, reject) => {
      this.use(
        target,
        capabilities,
        (connection) => {
          resolve({ connection, release: () => released.fulfil() })
          return released.promise
        },
        signal,
      ).catch(reject)
    })
  }

  async gated<T>(key: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    const held = this.#gates.get(key) ?? { gate: new Gate(this.#limits.maxConcurrentPerTarget), users: 0 }
    this.#gates.set(key, held)
    held.users++
    try {
      return await held.gate.through(work, signal)
    } finally {
      if (--held.users === 0) this.#gates.delete(key)
    }
  }

  /** New calls open a new connection; those that are running finish on the old one. */
  forget(target: string): void {
    this.#verdicts.delete(target)
    for (const entry of [...this.#entries.values()]) if (entry.target === target) this.#retire(entry)
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#entries.values()].map((entry) => this.#drop(entry)))
  }

  async #once<T>(
    target: UpstreamTarget,
    capabilities: ClientCapabilities,
    work: (connection: Connection) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    const entry = this.#entry(target, capabilities)
    entry.users++
    clearTimeout(entry.idle)
    try {
      return await work(await abandonable(entry.opening, signal))
    } catch (error) {
      const outdated = error instanceof ProtocolError && error.code === unsupportedProtocolVersion
      if (outdated) this.#verdicts.delete(target.key)
      if (outdated || error instanceof SessionExpired) this.#retire(entry)
      throw error
    } finally {
      if (--entry.users === 0) this.#rest(entry)
    }
  }

  #entry(target: UpstreamTarget, capabilities: ClientCapabilities): Entry {
    if (this.#closed) throw new AppError('SERVICE_UNAVAILABLE', 'The gateway is shutting down.')
    const prior = this.#verdict(target.key)
    // Until its era is known an upstream is treated as a legacy one.
    const asked = askable(capabilities)
    const key = prior?.kind === 'modern' ? target.key : `${target.key}\n${canonical(asked)}`
    const held = this.#entries.get(key)
    if (held) {
      this.#entries.delete(key)
      this.#entries.set(key, held)
      return held
    }
    this.#makeRoom()
    const entry: Entry = {
      key,
      target: target.key,
      opening: this.#open(target, asked, prior),
      users: 0,
      idle: undefined,
      retired: false,
    }
    this.#entries.set(key, entry)
    // A failed opening is not kept: the next caller tries anew.
    entry.opening.catch(() => this.#remove(entry))
    return entry
  }

  async #open(
    target: UpstreamTarget,
    capabilities: ClientCapabilities,
    prior: PriorDiscovery | undefined,
  ): Promise<Connection> {
    const onWarning = (message: string, error: unknown): void =>
      this.#onWarning?.({ message, target: target.key, error })
    const session = await UpstreamSession.open({
      target,
      fetch: this.#fetch,
      limits: this.#limits,
      capabilities,
      prior,
      onWarning,
    })
    if (!prior) this.#remember(target.key, session.verdict)
    return { session, tools: new ToolCatalogue(session, this.#now) }
  }

  #verdict(key: string): PriorDiscovery | undefined {
    const held = this.#verdicts.get(key)
    if (held && this.#now() - held.at < verdictMs) return held.prior
    this.#verdicts.delete(key)
    return undefined
  }

  #remember(key: string, prior: PriorDiscovery): void {
    const [oldest] = this.#verdicts.keys()
    if (this.#verdicts.size >= maxVerdicts && oldest !== undefined) this.#verdicts.delete(oldest)
    this.#verdicts.set(key, { prior, at: this.#now() })
  }

  /** The connection that was used longest ago makes room, but never one that is in use. */
  #makeRoom(): void {
    if (this.#entries.size < this.#limits.maxPool) return
    for (const entry of this.#entries.values())
      if (entry.users === 0) {
        void this.#drop(entry)
        return
      }
    throw new AppError('SERVICE_UNAVAILABLE', 'Too many services are in use at once.', { retryAfterSeconds: 1 })
  }

  #rest(entry: Entry): void {
    if (entry.retired) return void this.#drop(entry)
    if (this.#entries.get(entry.key) !== entry) return
    entry.idle = setTimeout(() => void this.#drop(entry), this.#limits.poolIdleMs).unref()
  }

  #retire(entry: Entry): void {
    entry.retired = true
    this.#remove(entry)
    if (entry.users === 0) void this.#drop(entry)
    // Those who only listen have nothing to finish.
    else void entry.opening.then(({ session }) => session.dismiss()).catch(() => undefined)
  }

  #remove(entry: Entry): void {
    clearTimeout(entry.idle)
    if (this.#entries.get(entry.key) === entry) this.#entries.delete(entry.key)
  }

  async #drop(entry: Entry): Promise<void> {
    this.#remove(entry)
    const connection = await entry.opening.catch(() => undefined)
    await connection?.session.close()
  }
}

/** What an upstream can ask a client for; the rest of what the client can do makes no difference to a session. */
const askable = ({ elicitation, sampling, roots }: ClientCapabilities): ClientCapabilities => ({
  ...(elicitation ? { elicitation } : {}),
  ...(sampling ? { sampling } : {}),
  ...(roots ? { roots } : {}),
})

/** The same text for the same capabilities, in whatever order they were written. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )
}
