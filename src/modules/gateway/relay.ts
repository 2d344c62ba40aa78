import { ProtocolError, type LoggingLevel, type ServerCapabilities, type Tool } from '@modelcontextprotocol/client'
import { AppError } from '../../kernel/errors.ts'
import { mayUse, toolAccess } from '../services/toolPolicy.ts'
import { failureStatus, InvalidArguments, invalidParams, methodNotFound, unknownTool } from './relayErrors.ts'
import { louder } from './relayLogging.ts'
import type { ArgumentChecks } from './argumentChecks.ts'
import { isChanged, isNews } from './pins.ts'
import { guardedAsk, holdsBack, refuseSecrets, refuseSecretsIn } from './relaySecrets.ts'
import type { CallRecord, CallStatus, GatewayOptions, Json, Passage } from './types.ts'
import type { Caller, Connection, UpstreamPool } from './upstream.ts'
import { abandonable } from './upstreamDeadline.ts'
import type { Ask, Notification } from './upstreamExchange.ts'

/** Whoever asked: an MCP client of either era, or the control plane. */
export type Downstream = {
  requestId: string
  signal: AbortSignal | undefined
  /** Its era, and what it can be asked while it waits. */
  caller: Caller
  /** Log messages below this are not passed on. Without one, a legacy client gets what the upstream chooses to send, a modern one nothing. */
  logLevel: LoggingLevel | undefined
  notify: (notification: Notification) => void
  /** Asks the client itself. Absent where there is no way to. */
  ask?: Ask | undefined
  /** Told when the upstream wants to be asked for the rest later. */
  interrupt?: ((retryMs: number) => void) | undefined
  /** Whether the client answers an `input_required` result by itself; otherwise it is asked, round by round. */
  multiRoundTrip: boolean
}

export type RelayedRequest = { method: string; params: Json }

/** Methods that are passed on as they are. Others are answered here or refused: what is not known cannot be judged. */
const forwarded: readonly string[] = [
  'resources/list',
  'resources/templates/list',
  'resources/read',
  'prompts/list',
  'prompts/get',
  'completion/complete',
]
/** What an upstream must offer for a method to exist at all. */
const offers: Readonly<Record<string, keyof ServerCapabilities>> = {
  'tools/list': 'tools',
  'tools/call': 'tools',
  'resources/list': 'resources',
  'resources/templates/list': 'resources',
  'resources/read': 'resources',
  'prompts/list': 'prompts',
  'prompts/get': 'prompts',
  'completion/complete': 'completions',
}

/** Whether there is such a method at an upstream with these capabilities. */
export function isOffered(method: string, capabilities: ServerCapabilities): boolean {
  const capability = Object.hasOwn(offers, method) ? offers[method] : undefined
  return capability !== undefined && capabilities[capability] !== undefined
}

const subjects: Readonly<Record<string, string>> = {
  'tools/call': 'name',
  'prompts/get': 'name',
  'resources/read': 'uri',
}
const maxRounds = 8

type RelayOptions = {
  pool: UpstreamPool
  checks: ArgumentChecks
  record: (entry: CallRecord) => Promise<void>
  admit: ((passage: Passage) => Promise<() => void>) | undefined
  pin: GatewayOptions['pin']
  trace?: GatewayOptions['trace']
  clock: () => Date
}

/** The one path of every request to an upstream: policy, then the call, then its record, then the answer. */
export class Relay {
  readonly #pool: UpstreamPool
  readonly #checks: ArgumentChecks
  readonly #record: RelayOptions['record']
  readonly #admit: RelayOptions['admit']
  readonly #pin: RelayOptions['pin']
  readonly #trace: RelayOptions['trace']
  readonly #clock: () => Date

  constructor({ pool, checks, record, admit, pin, trace, clock }: RelayOptions) {
    this.#pool = pool
    this.#checks = checks
    this.#record = record
    this.#admit = admit
    this.#pin = pin
    this.#trace = trace
    this.#clock = clock
  }

  /** Answers one request, or throws a `ProtocolError`, an `AppError` or `Cancelled`. */
  async answer(passage: Passage, request: RelayedRequest, downstream: Downstream): Promise<Json> {
    const { method, params } = request
    if (method === 'ping') return {}
    if (method === 'tools/list') return this.#list(passage, params, downstream)
    if (method !== 'tools/call' && !forwarded.includes(method))
      throw new ProtocolError(methodNotFound, 'Method not found')
    const work = (): Promise<Json> =>
      this.#admitted(passage, () =>
        method === 'tools/call' ? this.#call(passage, params, downstream) : this.#forward(passage, request, downstream),
      )
    return Object.hasOwn(subjects, method) ? this.#recorded(passage, request, downstream, work) : work()
  }

  /** The tools that this caller may call. */
  async tools(passage: Passage, { caller, signal }: Pick<Downstream, 'caller' | 'signal'>): Promise<Tool[]> {
    const { tools } = await this.#connected(passage, caller, signal, (connection) => connection.tools.list())
    await this.#noted(passage, tools)
    return tools.filter((tool) => permitted(passage, tool))
  }

  /** One tool, if there is one of this name that this caller may call. */
  async findTool(
    passage: Passage,
    name: string,
    { caller, signal }: Pick<Downstream, 'caller' | 'signal'>,
  ): Promise<Tool | undefined> {
    // Said before the upstream is asked for its list, so that blocking a tool also works when the upstream is down.
    if (passage.toolAccess.get(name) === 'BLOCKED' || passage.selection?.has(name) === false) return undefined
    const tool = await this.#connected(passage, caller, signal, ({ tools }) => tools.find(name))
    if (tool) await this.#noted(passage, [tool], { caller, signal })
    return tool && permitted(passage, tool) ? tool : undefined
  }

  /** Whether the service has such a method at all. */
  async offers(
    passage: Passage,
    method: string,
    { caller, signal }: Pick<Downstream, 'caller' | 'signal'>,
  ): Promise<boolean> {
    return this.#connected(passage, caller, signal, ({ session }) =>
      Promise.resolve(isOffered(method, session.capabilities)),
    )
  }

  /** Sees to it that what tools say of themselves is written down before anybody hears it. */
  async #noted(passage: Passage, tools: readonly Tool[], one?: Pick<Downstream, 'caller' | 'signal'>): Promise<void> {
    const { pins } = passage
    if (!pins || !this.#pin || !tools.some((tool) => isNews(pins, tool))) return
    // Of a service that nobody has looked at yet, everything is written down together.
    const all = one && pins.size === 0
    const said = all
      ? (await this.#connected(passage, one.caller, one.signal, (connection) => connection.tools.list())).tools
      : tools
    await this.#pin(passage, said)
  }

  async #list(passage: Passage, params: Json, downstream: Downstream): Promise<Json> {
    // The whole list is one page, so no cursor is ours.
    if (params['cursor'] !== undefined) throw new ProtocolError(invalidParams, 'Invalid cursor')
    const { tools, freshUntil } = await this.#connected(
      passage,
      downstream.caller,
      downstream.signal,
      ({ tools: catalogue }) => catalogue.list(),
    )
    await this.#noted(passage, tools)
    const ttlMs = Math.max(0, freshUntil - this.#clock().getTime())
    return { tools: tools.filter((tool) => permitted(passage, tool)), ttlMs, cacheScope: 'private' }
  }

  async #call(passage: Passage, params: Json, downstream: Downstream): Promise<Json> {
    const name = params['name']
    if (typeof name !== 'string')
      throw new ProtocolError(invalidParams, 'Invalid params: the name of a tool is missing')
    const tool = await this.findTool(passage, name, downstream)
    if (!tool) throw unknownTool(name)
    const issues = this.#checks.issues(tool.inputSchema, params['arguments'] ?? {})
    if (issues.length > 0) throw new InvalidArguments(name, issues)
    return this.#forward(passage, { method: 'tools/call', params }, downstream, tool.inputSchema)
  }

  async #forward(
    passage: Passage,
    { method, params }: RelayedRequest,
    downstream: Downstream,
    inputSchema?: unknown,
  ): Promise<Json> {
    const { caller, signal, logLevel, notify } = downstream
    const ask = guardedAsk(passage, downstream.ask)
    refuseSecrets(passage, params)
    const wanted = logLevel ?? (caller.era === 'legacy' ? 'debug' : undefined)
    const onNotification = (notification: Notification): void => {
      if (notification.method === 'notifications/message' && !louder(notification.params?.['level'], wanted)) return
      if (holdsBack(passage, notification)) return
      notify(notification)
    }
    const options = {
      capabilities: caller.capabilities,
      signal,
      logLevel,
      onNotification,
      onRequest: ask,
      onInterruption: downstream.interrupt,
      inputSchema,
    }
    let sent = params
    for (let round = 0; ; round++) {
      const result = await this.#traced(passage, { method, params: sent }, (traceparent) =>
        this.#pool.request(passage.target, caller, method, sent, { ...options, traceparent }),
      ).catch((error: unknown) => {
        throw discreet(error, passage.target)
      })
      refuseSecretsIn(passage, result)
      if (result['resultType'] !== 'input_required' || downstream.multiRoundTrip) return privately(result)
      if (!ask) throw new AppError('UPSTREAM_ERROR', 'The service asks for input that this client cannot give.')
      if (round >= maxRounds) throw new AppError('UPSTREAM_ERROR', 'The service keeps asking for more input.')
      sent = { ...params, ...(await answers(result, ask)) }
    }
  }

  async #traced(
    passage: Passage,
    { method, params: { name } }: RelayedRequest,
    work: (traceparent?: string) => Promise<Json>,
  ): Promise<Json> {
    const call = this.#trace?.(passage, { method, name: typeof name === 'string' ? name : undefined })
    if (!call) return work()
    try {
      const result = await work(call.traceparent)
      call.end(result['isError'] === true ? 'tool_error' : 'ok')
      return result
    } catch (error) {
      call.end(failureStatus(error))
      throw error
    }
  }

  async #connected<T>(
    { target }: Passage,
    caller: Caller,
    signal: AbortSignal | undefined,
    work: (connection: Connection) => Promise<T>,
  ): Promise<T> {
    return this.#pool.use(target, caller, (connection) => abandonable(work(connection), signal), signal)
  }

  async #admitted(passage: Passage, work: () => Promise<Json>): Promise<Json> {
    const leave = await this.#admit?.(passage)
    try {
      return await work()
    } finally {
      leave?.()
    }
  }

  async #recorded(
    passage: Passage,
    { method, params }: RelayedRequest,
    { requestId }: Downstream,
    work: () => Promise<Json>,
  ): Promise<Json> {
    const startedAt = this.#clock()
    const start = performance.now()
    const subject = params[subjects[method] ?? '']
    const entry = (status: CallStatus): CallRecord => ({
      passage,
      method,
      tool: typeof subject === 'string' ? subject : null,
      arguments: params['arguments'],
      status,
      startedAt,
      durationMs: performance.now() - start,
      requestId,
    })
    let result: Json
    try {
      result = await work()
    } catch (error) {
      await this.#record(entry(failureStatus(error)))
      throw error
    }
    await this.#record(entry(result['isError'] === true ? 'tool_error' : 'ok'))
    return result
  }
}

/** The one decision behind a tool's place in a list and the permission to call it, in collections too. */
const permitted = (passage: Passage, tool: Tool): boolean => {
  const { actor, trusted, toolAccess: settings, selection, safety, pins } = passage
  if (selection?.has(tool.name) === false) return false
  if (safety?.hideChangedTools && pins && isChanged(pins, tool)) return false
  const setting = settings.get(tool.name)
  return mayUse(actor.scopes, toolAccess({ setting, trusted, annotations: tool.annotations }))
}

/** Some upstreams repeat the token that they refuse, and a shared one is not for its users to see. */
function discreet(error: unknown, { headers }: Passage['target']): unknown {
  if (!(error instanceof ProtocolError)) return error
  let text = JSON.stringify([error.message, error.data ?? null])
  for (const secret of headers.values())
    for (const part of secret.reveal().split(' '))
      if (part.length >= minSecretLength) text = text.replaceAll(JSON.stringify(part).slice(1, -1), '****')
  const [message, data] = JSON.parse(text) as [string, unknown]
  return new ProtocolError(error.code, message, data ?? undefined)
}

const minSecretLength = 8

/** An answer that one credential got is nobody else's, whatever the upstream thinks. */
const privately = (result: Json): Json => ('cacheScope' in result ? { ...result, cacheScope: 'private' } : result)

/** What a multi-round-trip upstream asks for, asked of a client that knows only requests. */
async function answers({ inputRequests, requestState }: Json, ask: Ask): Promise<Json> {
  const asked = Object.entries((inputRequests ?? {}) as Record<string, { method?: unknown; params?: Json }>)
  const given: [string, Json][] = []
  for (const [key, { method, params }] of asked) given.push([key, await ask({ method: String(method), params })])
  const inputResponses = Object.fromEntries(given)
  return { inputResponses, ...(requestState === undefined ? {} : { requestState }) }
}
