import { EventEmitter } from 'node:events'
import { Readable } from 'node:stream'
import { constants, createBrotliDecompress, createGunzip } from 'node:zlib'
import { request, type Dispatcher } from 'undici'
import { timedOut, tooLarge, upstreamFailure } from './outboundLimits.ts'
import { connectionHeaders, parseTarget } from './redirects.ts'

/** A body that is read once, chunk by chunk, or cancelled; what is neither holds its connection. */
export type ReplyBody = AsyncIterable<Uint8Array> & { cancel(reason?: unknown): Promise<void> }

/** As much of a `Response` as one who knows what to expect needs. A `Response` is one. */
export type Reply = {
  readonly status: number
  readonly ok: boolean
  readonly headers: { get(name: string): string | null }
  readonly body: ReplyBody | null
}

export type Asked = {
  method: string
  /** By lower-case name. */
  headers: Readonly<Record<string, string>>
  body?: string
  /** Ends the exchange at any moment, the reading of its body too. */
  signal: AbortSignal
}

type Limits = {
  agent: Dispatcher
  /** Until the headers are there, connecting included. */
  deadlineMs: number
  /** Cap on the body, counted on the wire and again after decompression. */
  maxResponseBytes: number
}

const connectionNames = new Set(connectionHeaders)
const flushed = { flush: constants.Z_SYNC_FLUSH, finishFlush: constants.Z_SYNC_FLUSH }
const decompressors: Readonly<Record<string, () => NodeJS.ReadWriteStream>> = {
  gzip: () => createGunzip(flushed),
  br: () => createBrotliDecompress({ flush: constants.BROTLI_OPERATION_FLUSH, finishFlush: constants.BROTLI_OPERATION_FLUSH }),
} // prettier-ignore

/** What ends a request: undici takes an emitter of `abort` as well, and a signal costs many times as much. */
class Ending extends EventEmitter {
  aborted = false
  reason: unknown

  abort(reason: unknown): void {
    if (this.aborted) return
    this.aborted = true
    this.reason = reason
    this.emit('abort')
  }
}

class Body implements ReplyBody {
  readonly #wire: Readable
  readonly #coding: string | null
  readonly #max: number
  readonly #failure: (error: unknown) => unknown

  constructor(wire: Readable, coding: string | null, max: number, failure: (error: unknown) => unknown) {
    this.#wire = wire
    this.#coding = coding
    this.#max = max
    this.#failure = failure
    // Its reader hears of it; when there is none yet, nobody is to.
    wire.on('error', () => {})
  }

  async *#bounded(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let received = 0
    for await (const chunk of source) {
      received += chunk.byteLength
      if (received > this.#max) throw tooLarge()
      yield chunk
    }
  }

  #decoded(): AsyncIterable<Uint8Array> {
    const wire = this.#bounded(this.#wire)
    const decompress = this.#coding === null ? undefined : decompressors[this.#coding]
    if (!decompress) return wire
    const source = Readable.from(wire)
    const decoded = decompress() as NodeJS.ReadWriteStream & Readable
    source.once('error', (error) => decoded.destroy(error))
    decoded.once('close', () => source.destroy())
    return this.#bounded(source.pipe(decoded))
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    try {
      yield* this.#decoded()
    } catch (error) {
      throw this.#failure(error)
    }
  }

  cancel(): Promise<void> {
    this.#wire.destroy()
    return Promise.resolve()
  }
}

/**
 * One request and its answer, through the platform's one door and under its rules. Redirects are answered, not followed. It
 * goes past `fetch`, whose classes and web streams cost a call more than everything else about it.
 */
export async function exchange(
  input: string | URL,
  { method, headers: given, body, signal }: Asked,
  { agent, deadlineMs, maxResponseBytes }: Limits,
): Promise<Reply> {
  const url = parseTarget(String(input))
  signal.throwIfAborted()
  const failure = (error: unknown): unknown => (signal.aborted ? signal.reason : upstreamFailure(error))
  const headers: Record<string, string> = { 'user-agent': 'mcp-platform', 'accept-encoding': 'gzip, br' }
  for (const [name, value] of Object.entries(given)) if (!connectionNames.has(name)) headers[name] = value
  // The client's own timers start when a request is written and again at every 1xx; this one bounds the whole wait.
  const ending = new Ending()
  const leave = (): void => ending.abort(signal.reason)
  signal.addEventListener('abort', leave, { once: true })
  const timer = setTimeout(() => ending.abort(timedOut('no headers in time')), deadlineMs)
  try {
    const answer = await request(url, { method, headers, body: body ?? null, signal: ending, dispatcher: agent })
    answer.body.once('close', () => signal.removeEventListener('abort', leave))
    const header = (name: string): string | null => {
      const found = answer.headers[name]
      return found === undefined ? null : Array.isArray(found) ? found.join(', ') : found
    }
    const coding = header('content-encoding')?.trim().toLowerCase() ?? null
    const read = new Body(answer.body, coding === 'identity' ? null : coding, maxResponseBytes, failure)
    const refusal =
      Number(header('content-length')) > maxResponseBytes
        ? tooLarge()
        : coding === null || coding === 'identity' || Object.hasOwn(decompressors, coding)
          ? null
          : upstreamFailure(new Error(`content-encoding ${coding}`))
    if (refusal) {
      await read.cancel()
      throw refusal
    }
    const status = answer.statusCode
    return {
      status,
      ok: status >= 200 && status < 300,
      headers: { get: (name) => header(name.toLowerCase()) },
      body: read,
    }
  } catch (error) {
    signal.removeEventListener('abort', leave)
    throw failure(error)
  } finally {
    clearTimeout(timer)
  }
}
