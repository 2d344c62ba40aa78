import { ProtocolError } from '@modelcontextprotocol/client'
import { randomUUID } from 'node:crypto'
import { AppError } from '../../kernel/errors.ts'
import type { Downstream, Relay, RelayedRequest } from './relay.ts'
import { answerMs, askable, assertMayAsk } from './relayAsking.ts'
import { invalidParams } from './relayErrors.ts'
import type { Json, Passage } from './types.ts'
import { signalled } from './upstreamDeadline.ts'
import type { ServerRequest } from './upstreamExchange.ts'

const prefix = 'gateway-parked:'
const maxParked = 1000
const maxParkedPerCaller = 8
const interactive: readonly string[] = ['tools/call', 'prompts/get', 'resources/read']

type Leg = Pick<Downstream, 'notify' | 'signal'>
type Question = ServerRequest & { answer: (result: Json) => void; refuse: (error: Error) => void }

/**
 * Where a call of a legacy upstream waits while a 2026-07-28 client fetches the input that the upstream asked for. Such a
 * client is asked by a result and answers by calling again; the upstream's own call stays open in between.
 */
export class Parking {
  readonly #calls = new Map<string, ParkedCall>()

  async answer(passage: Passage, request: RelayedRequest, downstream: Downstream, relay: Relay): Promise<Json> {
    const state = request.params['requestState']
    if (typeof state === 'string' && state.startsWith(prefix)) return this.#resume(state, passage, request, downstream)
    if (!interactive.includes(request.method) || !askable(downstream.caller.capabilities))
      return relay.answer(passage, request, downstream)
    const call = new ParkedCall(passage, request)
    call.start((leg) =>
      relay.answer(passage, request, { ...downstream, ...leg, ask: (question) => call.ask(downstream, question) }),
    )
    return this.#round(call, downstream)
  }

  close(): void {
    for (const call of this.#calls.values()) call.abandon()
    this.#calls.clear()
  }

  #resume(state: string, passage: Passage, request: RelayedRequest, downstream: Downstream): Promise<Json> {
    const call = this.#calls.get(state)
    // Another caller's state looks exactly like one that has expired.
    if (!call?.isOf(passage, request))
      throw new ProtocolError(invalidParams, 'Invalid or expired requestState', { reason: 'invalid_request_state' })
    this.#calls.delete(state)
    call.answered((request.params['inputResponses'] ?? {}) as Json)
    return this.#round(call, downstream)
  }

  async #round(call: ParkedCall, leg: Leg): Promise<Json> {
    const outcome = await call.round(leg)
    if (outcome.result) return outcome.result
    const mine = [...this.#calls.values()].filter(({ owner }) => owner === call.owner).length
    if (this.#calls.size >= maxParked || mine >= maxParkedPerCaller) {
      call.abandon()
      throw new AppError('RATE_LIMITED', 'Too many calls are waiting for input already.', { retryAfterSeconds: 10 })
    }
    const requestState = `${prefix}${randomUUID()}`
    this.#calls.set(requestState, call)
    call.expireIn(answerMs, () => this.#calls.delete(requestState))
    return { resultType: 'input_required', inputRequests: outcome.inputRequests, requestState }
  }
}

type Outcome = { result: Json } | { result?: undefined; inputRequests: Json }

class ParkedCall {
  readonly owner: string
  readonly #what: string
  readonly #controller = new AbortController()
  readonly #questions = new Map<string, Question>()
  #result: Promise<Json> = Promise.resolve({})
  #leg: Leg | undefined
  #asked = signalled()
  #timer: NodeJS.Timeout | undefined

  constructor(passage: Passage, request: RelayedRequest) {
    this.owner = ownerOf(passage)
    this.#what = whatOf(request)
  }

  isOf(passage: Passage, request: RelayedRequest): boolean {
    return this.owner === ownerOf(passage) && this.#what === whatOf(request)
  }

  start(work: (leg: Leg) => Promise<Json>): void {
    this.#result = work({ signal: this.#controller.signal, notify: (notification) => this.#leg?.notify(notification) })
    // Between two rounds nobody waits for it.
    this.#result.catch(() => undefined)
  }

  ask({ caller: { capabilities } }: Downstream, question: ServerRequest): Promise<Json> {
    assertMayAsk(capabilities, question.method)
    return new Promise<Json>((answer, refuse) => {
      this.#questions.set(randomUUID(), { ...question, answer, refuse })
      this.#asked.fulfil()
    })
  }

  answered(responses: Json): void {
    clearTimeout(this.#timer)
    for (const [key, question] of this.#questions) {
      const response = responses[key]
      if (typeof response !== 'object' || response === null) continue
      this.#questions.delete(key)
      question.answer(response as Json)
    }
    if (this.#questions.size === 0) this.#asked = signalled()
  }

  /** One request of the client: until the upstream has answered, or asks. While it lasts, its end is the call's end. */
  async round(leg: Leg): Promise<Outcome> {
    const abandon = (): void => this.abandon()
    if (leg.signal?.aborted) abandon()
    leg.signal?.addEventListener('abort', abandon, { once: true })
    this.#leg = leg
    try {
      const asked = this.#asked.promise.then(() => undefined)
      const result = await Promise.race([this.#result, asked])
      if (result) return { result }
      const inputRequests = Object.fromEntries(
        [...this.#questions].map(([key, { method, params }]) => [key, { method, ...(params ? { params } : {}) }]),
      )
      return { inputRequests }
    } finally {
      this.#leg = undefined
      leg.signal?.removeEventListener('abort', abandon)
    }
  }

  expireIn(ms: number, onExpiry: () => void): void {
    this.#timer = setTimeout(() => {
      onExpiry()
      this.abandon()
    }, ms).unref()
  }

  abandon(): void {
    clearTimeout(this.#timer)
    this.#controller.abort()
  }
}

const ownerOf = ({ actor, orgId, serviceId, target }: Passage): string =>
  JSON.stringify([orgId, actor.userId, actor.credentialId, serviceId, target.key])

const whatOf = ({ method, params }: RelayedRequest): string => JSON.stringify([method, params['name'] ?? params['uri']])
