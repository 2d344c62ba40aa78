import { AppError, badInput, mustEnrol } from '../errors.ts'

const codeOf = (error: unknown): unknown => (error instanceof Error && 'code' in error ? error.code : undefined)

/**
 * What a database failure means to a caller, where it means anything: a unique value that is taken, a row that is not
 * there (or not theirs), a credential that no longer stands. Everything else is returned as it is, and will be masked.
 */
export function meaningOf(error: unknown): unknown {
  if (error instanceof AppError) return error
  // PostgreSQL keeps every character but this one (22021; 22P05 in JSON).
  if (error instanceof Error && /\b(22021|22P05)\b/.test(error.message))
    return badInput([{ path: [], message: 'expected text without NUL characters' }], error)
  switch (codeOf(error)) {
    case 'UNAUTHENTICATED':
      return new AppError('UNAUTHENTICATED', 'Your credential is no longer valid. Sign in again.', { cause: error })
    case 'PERSISTED_QUERY_NOT_FOUND':
      return new AppError('PERSISTED_QUERY_NOT_FOUND', 'No such persisted operation.', { cause: error })
    case 'MFA_REQUIRED':
      return mustEnrol(error)
    case 'SERVICE_UNAVAILABLE':
      return new AppError('SERVICE_UNAVAILABLE', 'The platform is busy. Try again in a moment.', {
        cause: error,
        retryAfterSeconds: 1,
      })
    case 'P2002':
      return new AppError('CONFLICT', 'This value is taken already.', { cause: error })
    case 'P2025':
      return new AppError('NOT_FOUND', 'No such row.', { cause: error })
    case 'P2028':
      return new AppError('SERVICE_UNAVAILABLE', 'The request took too long. Try again.', { cause: error })
    default:
      return error
  }
}
