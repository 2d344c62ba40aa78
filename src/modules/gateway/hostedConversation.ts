import { SUBSCRIPTION_ID_META_KEY } from '@modelcontextprotocol/client'
import { InFlight } from '../../kernel/inFlight.ts'
import { methodNotFound } from './relayErrors.ts'
import type { Json } from './types.ts'
import { upstreamError } from './upstreamErrors.ts'

/** One request that the process is working on. */
export type Flight = {
  /** As whoever asked calls it; in the process's own conversation it has another number. */
  id: unknown
  progressToken: unknown
  /** What the process says before its answer. */
  say: (message: object) => void
  finish: (answer: Json) => void
  fail: (error: Error) => void
}

type Process = { send: (message: object) => void }

const listening = 'subscriptions/listen'

/**
 * The one conversation with a process, which several connections of the gateway share. Ids and progress tokens are
 * numbered anew, because those of two connections could be the same.
 */
export class Conversation {
  readonly #process: Process
  readonly #flights = new InFlight<number, Flight & { method: string }>()
  /** Requests of the process that somebody is answering. */
  readonly #questions = new Set<string | number>()
  readonly #listeners = new Set<(message: object) => void>()
  #next = 1

  constructor(process: Process) {
    this.#process = process
  }

  /** Calls at work; streams of events, which do not end by themselves, are not among them. */
  get busy(): number {
    return [...this.#flights.values()].filter(({ method }) => method !== listening).length
  }

  /** Begins a request; answers with what abandons it. */
  begin(message: Json, flight: Flight): () => void {
    const number = this.#next++
    const params = (message['params'] ?? {}) as Json
    const meta = params['_meta'] as Json | undefined
    const renumbered = meta && 'progressToken' in meta ? { ...params, _meta: { ...meta, progressToken: number } } : params
    this.#process.send({ ...message, id: number, ...('params' in message ? { params: renumbered } : {}) })
    this.#flights.set(number, { ...flight, method: String(message['method']) })
    return () => this.#abandon(number)
  } // prettier-ignore

  notify(message: Json): void {
    // Cancelling is done by whoever leaves the request's own stream, with the number that the process knows.
    if (message['method'] !== 'notifications/cancelled') this.#process.send(message)
  }

  /** An answer to what the process asked. */
  answer(message: Json): void {
    const id = message['id'] as string | number
    if (this.#questions.delete(id)) this.#process.send(message)
  }

  /** Hears what concerns no single request; answers with what ends that. */
  listen(listener: (message: object) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  hear(message: Json): void {
    const { id, method } = message
    if (typeof method !== 'string') return this.#finish(message)
    if (id === undefined) return this.#notified(method, message)
    if (typeof id === 'string' || typeof id === 'number') this.#asked(id, method, message)
  }

  end(): void {
    const flights = [...this.#flights.values()]
    this.#flights.clear()
    for (const { fail } of flights) fail(upstreamError('The service has ended.'))
    this.#listeners.clear()
  }

  #finish(message: Json): void {
    const number = Number(message['id'])
    const flight = this.#flights.get(number)
    this.#flights.delete(number)
    flight?.finish({ ...message, id: flight.id })
  }

  #abandon(number: number): void {
    if (!this.#flights.delete(number)) return
    try {
      this.#process.send({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: number } })
    } catch {
      // It has ended, and the request with it.
    }
  }

  #notified(method: string, message: Json): void {
    const params = (message['params'] ?? {}) as Json
    const meta = params['_meta'] as Json | undefined
    const subscription = meta?.[SUBSCRIPTION_ID_META_KEY]
    if (subscription !== undefined) {
      const flight = this.#flights.get(Number(subscription))
      flight?.say({ ...message, params: { ...params, _meta: { ...meta, [SUBSCRIPTION_ID_META_KEY]: flight.id } } })
    } else if (method === 'notifications/progress') {
      const flight = this.#flights.get(Number(params['progressToken']))
      flight?.say({ ...message, params: { ...params, progressToken: flight.progressToken } })
    } else if (/^notifications\/(tools|prompts|resources)\//.test(method)) {
      for (const listener of this.#listeners) listener(message)
    } else this.#oldest()?.say(message)
  }

  /** On this transport a request does not say which call it belongs to, so it is passed on only where that is certain. */
  #asked(id: string | number, method: string, message: Json): void {
    const calls = [...this.#flights.values()].filter((flight) => flight.method !== listening)
    const [only] = calls
    if (method === 'ping') this.#process.send({ jsonrpc: '2.0', id, result: {} })
    else if (only && calls.length === 1 && method !== 'roots/list') {
      this.#questions.add(id)
      only.say(message)
    } else
      this.#process.send({ jsonrpc: '2.0', id, error: { code: methodNotFound, message: 'Method not found' } })
  } // prettier-ignore

  #oldest(): Flight | undefined {
    for (const flight of this.#flights.values()) if (flight.method !== listening) return flight
    return undefined
  }
}
