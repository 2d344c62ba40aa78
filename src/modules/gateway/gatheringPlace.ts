import { ProtocolError, type ServerCapabilities, type Tool } from '@modelcontextprotocol/client'
import { AppError } from '../../kernel/errors.ts'
import { GatheringChanges } from './gatheringChanges.ts'
import { fanOut } from './gatheringFanOut.ts'
import { gatheredList, lists } from './gatheringLists.ts'
import { qualifiedResult, splitName, splitUri, type Qualified } from './gatheringNames.ts'
import { ownerOf, servicePlace, type Means, type Place, type Presence } from './place.ts'
import type { Downstream, RelayedRequest } from './relay.ts'
import { invalidParams, methodNotFound, UnknownTool, unknownTool } from './relayErrors.ts'
import type { Gathering, Json, Passage } from './types.ts'
import { gatewayIdentity } from './upstreamSession.ts'
import type { Caller } from './upstream.ts'

/** The same whoever is well at the moment, so that a client need not connect again when a service comes back. */
const everything: ServerCapabilities = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { listChanged: true, subscribe: true },
  completions: {},
  logging: {},
}
const toolsAlone: ServerCapabilities = { tools: { listChanged: true }, logging: {} }

const maxInstructions = 2000

const absent = (what: string): ProtocolError => new ProtocolError(invalidParams, `${what} not found`)

/** Where in a request the service is named, and how the request is written without it. */
function addressed({ method, params }: RelayedRequest): { at: Qualified; request: RelayedRequest } {
  if (method === 'completion/complete') {
    const ref = params['ref'] as Json | undefined
    const field = ref?.['type'] === 'ref/prompt' ? 'name' : 'uri'
    const at = split(String(ref?.[field]), field, 'Reference')
    return { at, request: { method, params: { ...params, ref: { ...ref, [field]: at.rest } } } }
  }
  const field = method === 'resources/read' ? 'uri' : 'name'
  const named = params[field]
  if (typeof named !== 'string') throw new ProtocolError(invalidParams, `Invalid params: the ${field} is missing`)
  const found = (field === 'name' ? splitName : splitUri)(named)
  if (!found && method === 'tools/call') throw unknownTool(named)
  const at = found ?? split(named, field, field === 'uri' ? `Resource ${named}` : `Prompt ${named}`)
  return { at, request: { method, params: { ...params, [field]: at.rest } } }
}

function split(text: string, field: 'name' | 'uri', what: string): Qualified {
  const found = (field === 'name' ? splitName : splitUri)(text)
  if (!found) throw absent(what)
  return found
}

/** Several services under one address. Each request goes to one of them, by the prefix, or to all. */
class GatheringPlace implements Place {
  readonly owner: string
  readonly userId: string
  readonly #means: Means
  readonly #gathering: Gathering
  readonly #deadlineMs: number
  readonly #passages = new Map<string, Promise<Passage>>()

  constructor(means: Means, gathering: Gathering, deadlineMs: number) {
    this.owner = ownerOf(gathering, gathering.key)
    this.userId = gathering.actor.userId
    this.#means = means
    this.#gathering = gathering
    this.#deadlineMs = deadlineMs
  }

  async open(caller: Caller, signal?: AbortSignal, purpose?: 'describe' | 'answer'): Promise<Presence> {
    const { toolsOnly, title } = this.#gathering
    const changes = new GatheringChanges(this.#means.pool, this.#gathering, caller)
    return {
      serverInfo: { ...gatewayIdentity, title },
      capabilities: toolsOnly ? toolsAlone : everything,
      instructions: purpose === 'describe' ? await this.#instructions(caller, signal) : undefined,
      onChange: (listener) => changes.listen(listener),
      watch: (uri) => this.#watch(uri, caller),
      // Each request brings the level that its client wants.
      hearFrom: () => Promise.resolve(),
      release: () => changes.end(),
    }
  }

  async answer(request: RelayedRequest, downstream: Downstream): Promise<Json> {
    const { method, params } = request
    if (method === 'ping') return {}
    const kind = lists.get(method)
    const known = kind ?? targeted.has(method)
    if (!known || (this.#gathering.toolsOnly && !method.startsWith('tools/')))
      throw new ProtocolError(methodNotFound, 'Method not found')
    if (kind) {
      const members = await this.#gathering.all()
      return gatheredList(this.#means.relay, members, method, kind, params, downstream, this.#deadlineMs)
    }
    const { at, request: own } = addressed(request)
    const name = String(params['name'])
    const passage = await this.#passage(at, method === 'tools/call' ? unknownTool(name) : absent(describe(request)))
    const result = await servicePlace(this.#means, passage)
      .answer(own, downstream)
      .catch((error: unknown) => {
        // Under the name that it was called by: a service that is there and one that is not say the same.
        throw error instanceof UnknownTool ? unknownTool(name) : error
      })
    return qualifiedResult(at.slug, method, result)
  }

  async permittedTool(name: string, caller: Caller, signal?: AbortSignal): Promise<Tool | undefined> {
    const at = splitName(name)
    if (!at) return undefined
    const passage = await this.#passage(at, unknownTool(name))
    return this.#means.relay.findTool(passage, at.rest, { caller, signal })
  }

  confirm(): Promise<void> {
    return this.#gathering.all().then(() => undefined)
  }

  /** A service that is absent and one that is not the caller's are `unknown` alike. Looked up once a request. */
  #passage({ slug }: Qualified, unknown: ProtocolError): Promise<Passage> {
    const found = this.#passages.get(slug) ?? this.#gathering.one(slug)
    this.#passages.set(slug, found)
    return found.catch((error: unknown) => {
      throw error instanceof AppError && error.code === 'NOT_FOUND' ? unknown : error
    })
  }

  async #watch(uri: string, caller: Caller): Promise<() => void> {
    if (this.#gathering.toolsOnly) throw new ProtocolError(methodNotFound, 'Method not found')
    const at = split(uri, 'uri', `Resource ${uri}`)
    const passage = await this.#passage(at, absent(`Resource ${uri}`))
    return this.#means.pool.use(passage.target, caller, ({ session }) => session.watch(at.rest))
  }

  async #instructions(caller: Caller, signal: AbortSignal | undefined): Promise<string> {
    const { requestId } = this.#gathering.actor.origin
    const members = await this.#gathering.all()
    const bounds = { deadlineMs: this.#deadlineMs, signal, requestId }
    const { answered, unavailable } = await fanOut(members, bounds, (passage, until) =>
      this.#means.pool.use(
        passage.target,
        caller,
        ({ session }) => Promise.resolve(session.instructions?.slice(0, maxInstructions)),
        until,
      ),
    )
    const services = members.map(({ slug }) => slug).join(', ')
    return [
      this.#gathering.description,
      `Names begin with the service that they belong to: {service}__{name}. Services: ${services || 'none'}.`,
      ...answered.flatMap(({ slug, value }) => (value ? [`${slug}: ${value}`] : [])),
      ...unavailable.map(({ service, message }) => `${service} is not available: ${message}`),
    ]
      .filter((line) => line !== '')
      .join('\n\n')
  }
}

const targeted: ReadonlySet<string> = new Set(['tools/call', 'prompts/get', 'resources/read', 'completion/complete'])

const describe = ({ method, params }: RelayedRequest): string =>
  method === 'prompts/get' ? `Prompt ${String(params['name'])}` : method === 'resources/read' ? `Resource ${String(params['uri'])}` : 'Reference' // prettier-ignore

export const gatheringPlace = (means: Means, gathering: Gathering, deadlineMs: number): Place =>
  new GatheringPlace(means, gathering, deadlineMs)
