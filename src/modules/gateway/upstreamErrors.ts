import { ProtocolError, SdkError, SdkErrorCode, SdkHttpError } from '@modelcontextprotocol/client'
import { AppError } from '../../kernel/errors.ts'

export const upstreamError = (
  publicMessage: string,
  cause?: unknown,
  extensions: Record<string, unknown> = {},
): AppError => new AppError('UPSTREAM_ERROR', publicMessage, { cause, extensions })

export const upstreamTimeout = (cause?: unknown): AppError =>
  new AppError('UPSTREAM_TIMEOUT', 'The service did not answer in time.', { cause })

/** The caller gave up; nobody is waiting for an answer. */
export class Cancelled extends Error {
  override readonly name = 'Cancelled'
}

/** The upstream no longer knows the session; by the specification it has not looked at the request. */
export class SessionExpired extends Error {
  override readonly name = 'SessionExpired'
}

/** What an HTTP status other than success says, without repeating the upstream's text. */
export function refusedWith(status: number, retryAfter: string | null = null): AppError {
  const extensions = { upstreamStatus: status }
  if (status === 401 || status === 403)
    return upstreamError('The service refused the credential that is stored for it.', undefined, extensions)
  if (status === 429) {
    const seconds = Number(retryAfter)
    return new AppError('UPSTREAM_ERROR', 'The service is limiting the rate of calls.', {
      extensions,
      ...(Number.isFinite(seconds) && seconds > 0 ? { retryAfterSeconds: seconds } : {}),
    })
  }
  return upstreamError(`The service answered with HTTP status ${status}.`, undefined, extensions)
}

const offences: readonly unknown[] = [
  SdkErrorCode.InvalidResult,
  SdkErrorCode.UnsupportedResultType,
  SdkErrorCode.ListPaginationExceeded,
]

/** Every failure of an upstream as one of three things: its own JSON-RPC error, ours, or a cancellation. */
export function asUpstreamFailure(error: unknown): ProtocolError | AppError | Cancelled {
  if (error instanceof AppError || error instanceof ProtocolError || error instanceof Cancelled) return error
  const nested = nestedAppError(error)
  if (nested) return nested
  if (error instanceof SdkHttpError && typeof error.status === 'number') return refusedWith(error.status)
  if (error instanceof SdkError && error.code === SdkErrorCode.RequestTimeout) return upstreamTimeout(error)
  if (error instanceof SdkError && offences.includes(error.code))
    return upstreamError('The service does not follow the protocol.', error)
  return upstreamError('The service could not be reached.', error)
}

/** What kind of failure it was, without its words: the SDK quotes whole messages in some of them. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return typeof error
  return 'code' in error ? `${error.name} ${String(error.code)}` : error.name
}

/** `fetch` and the SDK wrap what the guard threw; the guard's own words matter more than the wrapping. */
function nestedAppError(error: unknown, depth = 0): AppError | undefined {
  if (error instanceof AppError) return error
  if (!(error instanceof Error) || depth > 4) return undefined
  const data: unknown = 'data' in error ? error.data : undefined
  const inner = typeof data === 'object' && data !== null && 'cause' in data ? data.cause : undefined
  return nestedAppError(error.cause, depth + 1) ?? nestedAppError(inner, depth + 1)
}
