import { ProtocolError, type ClientCapabilities } from '@modelcontextprotocol/client'
import { AppError } from '../../kernel/errors.ts'
import type { Fetch, GatewayLimits, GatewayOptions, Json, Send, UpstreamTarget } from './types.ts'
import { ToolCatalogue } from './upstreamCatalogue.ts'
import { Breakers } from './upstreamBreaker.ts'
import { abandonable, signalled } from './upstreamDeadline.ts'
import { asUpstreamFailure, reasonOf, SessionExpired } from './upstreamErrors.ts'
import { Gate } from './upstreamGate.ts'
import { UpstreamSession, type RequestOptions } from './upstreamSession.ts'
import { Verdicts, type Era, type Plan } from './upstreamVerdicts.ts'

/** 2026-07-28: the upstream does not speak the revision it was thought to. It has not looked at the request. */
const unsupportedProtocolVersion = -32022

/** The client on whose behalf an upstream is used, as far as it matters there; `who` is its user. */
export type Caller = { era: Era; capabilities: ClientCapabilities; who: string }
export type Connection = { session: UpstreamSession; tools: ToolCatalogue }
/** A connection that stays open until it is released. */
export type Hold = { connection: Connection; release: () => void }
type Work<T> = (connection: Connection) => Promise<T>
type Entry = {
  key: string
  target: string
  opening: Promise<Connection>
  /** Once it is open. */
  connection: Connection | undefined
  users: number
  idle: NodeJS.Timeout | undefined
  retired: boolean
}

/**
 * The connections to all upstreams. One for each target, and on legacy upstreams, which are told once what their client
 * can do, one for each set of client capabilities and, where they can be asked anything, each user; opened at the first use, closed when idle, bounded in number.
 */
export class UpstreamPool {
  readonly #fetch: Fetch
  readonly #send: Send
  readonly #limits: GatewayLimits
  readonly #now: () => number
  readonly #onWarning: GatewayOptions['onWarning']
  // In the order of their last use.
  readonly #entries = new Map<string, Entry>()
  readonly #gates = new Map<string, { gate: Gate; users: number }>()
  readonly #verdicts: Verdicts
  readonly #breakers = new Breakers()
  #closed = false

  constructor({
    fetch,
    send = (url, asked) => fetch(url, { ...asked, redirect: 'manual' }),
    limits,
    clock,
    onWarning,
  }: Pick<GatewayOptions, 'fetch' | 'send' | 'limits' | 'onWarning'> & { clock: () => Date }) {
    this.#fetch = fetch
    this.#send = send
    this.#limits = limits
    this.#now = () => clock().getTime()
    this.#onWarning = onWarning
    this.#verdicts = new Verdicts(this.#now)
  }

  /** Does something with a connection that stands, and once more with a new one if the upstream had forgotten it. */
  async use<T>(target: UpstreamTarget, caller: Caller, work: Work<T>, signal?: AbortSignal): Promise<T> {
    try {
      return await this.#once(target, caller, work, signal)
    } catch (error) {
      if (!isOutdated(error) && !(error instanceof SessionExpired)) throw asUpstreamFailure(error)
    }
    // Neither answer comes from an upstream that has begun to work, so saying it again is safe for any method.
    try {
      return await this.#once(target, caller, work, signal)
    } catch (error) {
      throw asUpstreamFailure(error)
    }
  }

  /** One request, when there is room for it. */
  async request(
    target: UpstreamTarget,
    caller: Caller,
    method: string,
    params: Json,
    options: RequestOptions,
  ): Promise<Json> {
    const { signal } = options
    const held = this.#gates.get(target.key) ?? { gate: new Gate(this.#limits.maxConcurrentPerTarget), users: 0 }
    this.#gates.set(target.key, held)
    held.users++
    try {
      return await held.gate.through(
        () =>
          this.use(
            target,
            caller,
            ({ session }) => this.#breakers.run(upstreamOf(target), () => session.request(method, params, options)),
            signal,
          ),
        signal,
      )
    } finally {
      if (--held.users === 0) this.#gates.delete(target.key)
    }
  }

  async hold(target: UpstreamTarget, caller: Caller, signal?: AbortSignal): Promise<Hold> {
    const released = signalled()
    return new Promise<Hold>((resolve, reject) => {
      const until: Work<void> = (connection) => {
        resolve({ connection, release: () => released.fulfil() })
        return released.promise
      }
      this.use(target, caller, until, signal).catch(reject)
    })
  }

  /** New calls open a new connection; those that are running finish on the old one. */
  forget(target: string): void {
    this.#verdicts.forget(target)
    for (const entry of [...this.#entries.values()]) if (entry.target === target) this.#retire(entry)
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#entries.values()].map((entry) => this.#drop(entry)))
  }

  async #once<T>(target: UpstreamTarget, caller: Caller, work: Work<T>, signal: AbortSignal | undefined): Promise<T> {
    const entry = this.#entry(target, caller)
    entry.users++
    clearTimeout(entry.idle)
    try {
      return await work(entry.connection ?? (await abandonable(entry.opening, signal)))
    } catch (error) {
      if (isOutdated(error)) this.#verdicts.forget(target.key)
      if (isOutdated(error) || error instanceof SessionExpired) this.#retire(entry)
      throw error
    } finally {
      if (--entry.users === 0) this.#rest(entry)
    }
  }

  #entry(target: UpstreamTarget, caller: Caller): Entry {
    if (this.#closed) throw new AppError('SERVICE_UNAVAILABLE', 'The gateway is shutting down.')
    const capabilities = askable(caller.capabilities)
    const plan = this.#verdicts.plan(target.key, caller.era)
    const key = keyOf(target, plan.era, capabilities, caller.who)
    const held = this.#entries.get(key)
    if (held) {
      this.#entries.delete(key)
      this.#entries.set(key, held)
      return held
    }
    this.#makeRoom()
    const opening = this.#breakers.run(upstreamOf(target), () => this.#open(target, capabilities, plan))
    const entry: Entry = {
      key,
      target: target.key,
      opening,
      connection: undefined,
      users: 0,
      idle: undefined,
      retired: false,
    }
    this.#entries.set(key, entry)
    opening.then(
      (connection) => {
        entry.connection = connection
        this.#refile(entry, keyOf(target, connection.session.era, capabilities, caller.who))
      },
      // A failed opening is not kept: the next caller tries anew.
      () => this.#remove(entry),
    )
    return entry
  }

  async #open(target: UpstreamTarget, capabilities: ClientCapabilities, plan: Plan): Promise<Connection> {
    const onWarning = (message: string, error: unknown): void =>
      this.#onWarning?.({ message, target: target.key, error: reasonOf(error) })
    const options = { target, fetch: this.#fetch, send: this.#send, limits: this.#limits, capabilities, onWarning }
    let refused = false
    const session = await UpstreamSession.open({ ...options, prior: plan.prior }).catch((error: unknown) => {
      const late = error instanceof AppError && error.code === 'UPSTREAM_TIMEOUT'
      if (plan.era !== 'legacy' || late) throw error
      refused = true
      return UpstreamSession.open({ ...options, prior: undefined })
    })
    this.#verdicts.learn(target.key, session, plan, refused)
    return { session, tools: new ToolCatalogue(session, this.#now) }
  }

  /** A connection is found under the era that it turned out to have; if there is one already, it is used up and closed. */
  #refile(entry: Entry, key: string): void {
    if (entry.key === key || this.#entries.get(entry.key) !== entry) return
    this.#entries.delete(entry.key)
    entry.key = key
    if (this.#entries.has(key)) entry.retired = true
    else this.#entries.set(key, entry)
  }

  /** The connection that was used longest ago makes room, but never one that is in use. */
  #makeRoom(): void {
    if (this.#entries.size < this.#limits.maxPool) return
    for (const entry of this.#entries.values()) if (entry.users === 0) return void this.#drop(entry)
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

const upstreamOf = ({ upstream, key }: UpstreamTarget): string => upstream ?? key

const isOutdated = (error: unknown): boolean =>
  error instanceof ProtocolError && error.code === unsupportedProtocolVersion

/** What an upstream can ask a client for; the rest of what the client can do makes no difference to a session. */
const askable = ({ elicitation, sampling, roots }: ClientCapabilities): ClientCapabilities => ({
  ...(elicitation ? { elicitation } : {}),
  ...(sampling ? { sampling } : {}),
  ...(roots ? { roots } : {}),
})

/**
 * A modern upstream is told at each request what the client can do, so one connection serves all. A legacy upstream may
 * ask outside the stream of any request; a connection on which it can is one user's alone, so that nobody hears what was
 * meant for somebody else.
 */
const keyOf = ({ key }: UpstreamTarget, era: Era | 'unknown', capabilities: ClientCapabilities, who: string): string =>
  era === 'modern'
    ? key
    : JSON.stringify([key, era, canonical(capabilities), Object.keys(capabilities).length > 0 ? who : null])

/** The same text for the same capabilities, in whatever order they were written. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )
}
