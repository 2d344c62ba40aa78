import { randomUUID } from 'node:crypto'
import { Response } from '@whatwg-node/fetch'
import { EventStream } from './relayStream.ts'

/** When a client whose connection broke may come back, unless the upstream named another time. */
const defaultRetryMs = 1000
/** How long a call goes on for a client that has gone, and its answer is kept for one that may not have got it. */
const graceMs = 30_000
const maxStreams = 16
const maxKeptBytes = 4 * 2 ** 20

/** Streams of one client that can be taken up again, by their id. */
export type Resumable = Map<string, ResumableStream>

/**
 * What is said on one request of a 2025-11-25 client, numbered and kept for a while, so that a client whose connection
 * broke, or whose upstream asks it to come back later (SEP-1699), misses nothing. Known to this instance alone.
 */
export class ResumableStream {
  readonly #id = randomUUID()
  readonly #all: Resumable
  readonly #abandon: () => void
  readonly #said: string[] = []
  #bytes = 0
  #live: EventStream | undefined
  #done = false
  #timer: NodeJS.Timeout | undefined

  constructor(all: Resumable, abandon: () => void) {
    this.#all = all
    this.#abandon = abandon
  }

  /** The first event has an id and nothing else, so that even a client that hears no more can come back. */
  begin(retryMs: number): Response {
    const [oldest] = this.#all.values()
    if (oldest && this.#all.size >= maxStreams) oldest.#expire()
    this.#all.set(this.#id, this)
    this.#live = this.#stream()
    this.#live.prime(`${this.#id}.0`, retryMs)
    return this.#live.response
  }

  send(message: object): void {
    const text = JSON.stringify(message)
    this.#said.push(text)
    this.#bytes += text.length
    this.#live?.sendText(text, `${this.#id}.${this.#said.length}`)
    // Too much to keep: it goes on for as long as the connection does.
    if (this.#bytes > maxKeptBytes) this.#all.delete(this.#id)
  }

  finish(message: object): void {
    this.send(message)
    this.#done = true
    this.interrupt()
  }

  /** Ends the connection; the client comes back for the rest. */
  interrupt(): void {
    const live = this.#live
    this.left()
    live?.close()
  }

  left(): void {
    this.#live = undefined
    clearTimeout(this.#timer)
    const kept = this.#all.get(this.#id) === this
    this.#timer = setTimeout(() => this.#expire(), kept ? graceMs : 0).unref()
  }

  resume(after: number): Response {
    clearTimeout(this.#timer)
    this.#live?.close()
    const stream = this.#stream()
    this.#live = stream
    this.#said.slice(after).forEach((text, i) => stream.sendText(text, `${this.#id}.${after + i + 1}`))
    if (this.#done) this.interrupt()
    return stream.response
  }

  #stream(): EventStream {
    const stream: EventStream = new EventStream(() => {
      if (this.#live === stream) this.left()
    })
    return stream
  }

  #expire(): void {
    clearTimeout(this.#timer)
    this.#all.delete(this.#id)
    if (!this.#done) this.#abandon()
  }
}

/** The rest of a stream that broke off after this event, if it is known here. */
export function resumed(all: Resumable | undefined, lastEventId: string | null): Response | undefined {
  const [, id = '', number = ''] = /^([\w-]{36})\.(\d{1,9})$/.exec(lastEventId ?? '') ?? []
  return all?.get(id)?.resume(Number(number))
}

/** `atOnce`: the client would rather have a stream, even for an answer that is all there is to say. */
type Leaving = { signal: AbortSignal; abandon: () => void; atOnce: boolean }

/** As `lazily`, with a stream that can be taken up again. While nothing has been said, the client's leaving is the call's end. */
export function resumably(
  all: Resumable,
  work: (send: (message: object) => void, interrupt: (retryMs: number) => void) => Promise<object>,
  { signal, abandon, atOnce }: Leaving,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const stream = new ResumableStream(all, abandon)
    let begun = false
    const begin = (retryMs: number): void => {
      if (!begun) resolve(stream.begin(retryMs))
      begun = true
    }
    const leave = (): void => {
      if (!begun) abandon()
    }
    signal.addEventListener('abort', leave, { once: true })
    const send = (message: object): void => {
      begin(defaultRetryMs)
      stream.send(message)
    }
    const interrupt = (retryMs: number): void => {
      begin(retryMs)
      stream.interrupt()
    }
    if (atOnce) begin(defaultRetryMs)
    work(send, interrupt).then((message) => {
      signal.removeEventListener('abort', leave)
      if (begun) stream.finish(message)
      else resolve(Response.json(message))
    }, reject)
  })
}
