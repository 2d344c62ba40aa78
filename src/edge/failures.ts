import { Response } from '@whatwg-node/fetch'
import { GraphQLError } from 'graphql'
import { withoutSuggestions } from '../graphql/suggestions.ts'
import { meaningOf } from '../kernel/database/failures.ts'
import { AppError, badInput } from '../kernel/errors.ts'
import type { Log } from '../kernel/log.ts'

/** Errors are translated here, once: what callers may know goes out, what they may not goes to the log under the request id. */
export type Failure = { error: AppError; internal: boolean }

/** Pothos says so of a cursor or id that it cannot read; nothing else of its making is the caller's doing. */
const isUnreadable = (error: unknown): boolean => error instanceof Error && error.name === 'PothosValidationError'

const masked = (cause: unknown): AppError =>
  new AppError('INTERNAL_SERVER_ERROR', 'Something went wrong. Quote the request id when you report it.', { cause })

export function translate(thrown: unknown): AppError {
  if (thrown instanceof GraphQLError) {
    // One that wraps nothing was made by the language itself: syntax, validation, coercion, a limit.
    if (thrown.originalError) return translate(thrown.originalError)
    return badInput([{ path: [], message: withoutSuggestions(thrown.message) }])
  }
  const meaning = meaningOf(thrown)
  if (meaning instanceof AppError) return meaning
  if (isUnreadable(thrown))
    return badInput([{ path: ['after'], message: 'expected a cursor that this API gave' }], thrown)
  return masked(thrown)
}

export function report(log: Log, requestId: string, error: AppError): void {
  if (error.status >= 500) log.error({ err: error, requestId, code: error.code }, 'request failed')
  else log.debug({ err: error, requestId, code: error.code }, 'request refused')
}

/** The error as it stands in an answer. */
export const present = (error: AppError, requestId: string) => ({
  message: error.message,
  extensions: { ...error.extensions, code: error.code, requestId },
})

/** An answer that is nothing but this error; the same shape at every door. */
export function errorResponse(error: AppError, requestId: string, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify({ errors: [present(error, requestId)] }), {
    status: error.status,
    headers: {
      'Content-Type': 'application/json; charset=utf-8',
      ...(error.retryAfterSeconds === undefined ? {} : { 'Retry-After': String(error.retryAfterSeconds) }),
      ...headers,
    },
  })
}
