import type { ReadableStream as WebReadableStream } from 'node:stream/web'
import type { Dispatcher } from 'undici'
import { AppError } from './errors.ts'

export type BodyLimits = { maxResponseBytes: number; bodyTimeoutMs: number }

export const timedOut = (cause: unknown): AppError =>
  new AppError('UPSTREAM_TIMEOUT', 'The upstream did not answer in time.', { cause })

export const tooLarge = (): AppError => new AppError('UPSTREAM_ERROR', 'The upstream sent too large an answer.')

const timeoutCodes = new Set([
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'ETIMEDOUT',
])

/** What a caller may know of a failed exchange. The client wraps its reasons in causes, ours among them. */
export function upstreamFailure(error: unknown): AppError {
  let reason = error
  for (let depth = 0; depth < 8 && reason instanceof Error; depth++, reason = reason.cause) {
    if (reason instanceof AppError) return reason
    if ('code' in reason && timeoutCodes.has(String(reason.code))) return timedOut(error)
  }
  return new AppError('UPSTREAM_ERROR', 'The upstream could not be reached, or broke off its answer.', { cause: error })
}

/**
 * The agent with one call's cap. Bytes are counted here as they come off the wire, because compressed input can be endless
 * and decompress to nothing (empty deflate blocks), which no count of the output would see.
 */
export const limitedDispatch = (agent: Dispatcher, maxBytes: number): Dispatcher =>
  agent.compose((dispatch) => (options, handler) => {
    let received = 0
    return dispatch(options, {
      onRequestStart: (controller, context: unknown) => handler.onRequestStart?.(controller, context),
      onResponseStart: (...response) => handler.onResponseStart?.(...response),
      onResponseData: (controller, chunk) => {
        received += chunk.length
        if (received > maxBytes) controller.abort(tooLarge())
        else handler.onResponseData?.(controller, chunk)
      },
      onResponseEnd: (...end) => handler.onResponseEnd?.(...end),
      onResponseError: (...failed) => handler.onResponseError?.(...failed),
    })
  })

/** Rejects once `ms` have passed without the work being done; Node's timers take no more than 31 bits. */
async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(timedOut(`silent for ${ms} ms`)), Math.min(ms, 2 ** 31 - 1))
  })
  return Promise.race([work, silence]).finally(() => clearTimeout(timer))
}

/**
 * The decompressed body, passed on chunk by chunk as it comes, ended by an error once it outgrows its cap or falls silent.
 * The silence is measured here because the client's own timer is coarse (a second and more), and only while the reader
 * waits, so a slow reader is not taken for a slow upstream.
 */
export function limitedBody(
  source: WebReadableStream<Uint8Array>,
  { maxResponseBytes, bodyTimeoutMs }: BodyLimits,
  failure: (error: unknown) => unknown,
): ReadableStream<Uint8Array> {
  const reader = source.getReader()
  let received = 0
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await within(bodyTimeoutMs, reader.read())
          if (done) return controller.close()
          received += value.byteLength
          if (received > maxResponseBytes) throw tooLarge()
          controller.enqueue(value)
        } catch (error) {
          controller.error(failure(error))
          await reader.cancel().catch(() => undefined)
        }
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  )
}

const bodilessStatuses = new Set([204, 205, 304])

export type Answer = { status: number; statusText: string; headers: Headers; body: ReadableStream<Uint8Array> | null }

/** A `Response` of the runtime, so that `instanceof` holds for callers, with the address that finally answered. */
export function presented({ status, statusText, headers, body }: Answer, url: URL, redirected: boolean): Response {
  if (status < 200 || status > 599) throw upstreamFailure(new Error(`status ${status}`))
  const response = new Response(bodilessStatuses.has(status) ? null : body, { status, statusText, headers })
  return Object.defineProperties(response, { url: { value: url.href }, redirected: { value: redirected } })
}
