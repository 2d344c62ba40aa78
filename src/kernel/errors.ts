/** The stable error codes of the public contract, each with the HTTP status it has when it fails a whole request. */
export const errorStatus = {
  UNAUTHENTICATED: 401,
  TOKEN_EXPIRED: 401,
  INVALID_CREDENTIALS: 401,
  FORBIDDEN: 403,
  MFA_REQUIRED: 403,
  NOT_FOUND: 404,
  METHOD_NOT_ALLOWED: 405,
  BAD_USER_INPUT: 400,
  CONFLICT: 409,
  RATE_LIMITED: 429,
  ACCOUNT_LOCKED: 423,
  COST_LIMIT_EXCEEDED: 400,
  PERSISTED_QUERY_NOT_FOUND: 404,
  PERSISTED_QUERY_REQUIRED: 403,
  SERVICE_UNCONFIGURED: 400,
  UPSTREAM_ERROR: 502,
  UPSTREAM_TIMEOUT: 504,
  PAYLOAD_TOO_LARGE: 413,
  UNSUPPORTED_MEDIA_TYPE: 415,
  SERVICE_UNAVAILABLE: 503,
  INTERNAL_SERVER_ERROR: 500,
} as const

export type ErrorCode = keyof typeof errorStatus

/** One rejected input value: where it is, and what would be right. */
export type InputIssue = { path: (string | number)[]; message: string }

type Options = { cause?: unknown; extensions?: Record<string, unknown>; retryAfterSeconds?: number }

/**
 * The only error that domain code throws: a stable code, a public sentence, a private cause.
 * The cause is for the log and never reaches a caller; `extensions` do, so they hold only what the caller may know.
 */
export class AppError extends Error {
  override readonly name = 'AppError'
  readonly code: ErrorCode
  readonly extensions: Readonly<Record<string, unknown>>
  /** Seconds after which the same call may succeed; becomes the `Retry-After` header. */
  readonly retryAfterSeconds: number | undefined

  constructor(code: ErrorCode, publicMessage: string, { cause, extensions = {}, retryAfterSeconds }: Options = {}) {
    super(publicMessage, cause === undefined ? undefined : { cause })
    this.code = code
    this.extensions = extensions
    this.retryAfterSeconds = retryAfterSeconds
  }

  get status(): number {
    return errorStatus[this.code]
  }
}

/** Absent and forbidden look the same, so every look-up that finds nothing says exactly this. */
export const notFound = (noun: string): AppError => new AppError('NOT_FOUND', `No such ${noun}.`)

/** Input that a schema refused, with the path of each bad value. */
export const badInput = (issues: InputIssue[], cause?: unknown): AppError =>
  new AppError(
    'BAD_USER_INPUT',
    issues.map((i) => (i.path.length ? `${i.path.join('.')}: ${i.message}` : i.message)).join('; '),
    {
      extensions: { issues },
      cause,
    },
  )

/** The organisation requires a second factor and this person has none: all they can do is enrol one. */
export const mustEnrol = (cause?: unknown): AppError =>
  new AppError('MFA_REQUIRED', 'Your organisation requires a second factor. Enrol one to go on.', {
    extensions: { methods: [], enrol: true },
    cause,
  })
