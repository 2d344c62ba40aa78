import * as oauth from 'oauth4webapi'
import { AppError } from '../../kernel/errors.ts'
import type { OutboundFetch } from '../../kernel/outbound.ts'
import type { Platform } from '../../kernel/platform.ts'

/** Metadata and token answers are small; whatever is larger is not one. */
const maxAnswerBytes = 262_144

/** `fetch` for discovery and tokens: through the platform's one door, bounded in size and, as a whole, in time. */
export function boundedFetch({ outbound, config }: Platform): OutboundFetch {
  const ms = config.oauthTimeoutSeconds * 1000
  return (url, init = {}) => {
    const deadline = AbortSignal.timeout(ms)
    const signal = init.signal ? AbortSignal.any([init.signal, deadline]) : deadline
    return outbound.fetch(url, { ...init, signal, maxResponseBytes: maxAnswerBytes, bodyTimeoutMs: ms })
  }
}

/** What the protocol's library is handed with each request. Cleartext is for networks that the operator opened; the door sees to it. */
export const through = (platform: Platform, { issuer }: Pick<oauth.AuthorizationServer, 'issuer'>) => ({
  [oauth.customFetch]: boundedFetch(platform) as (url: string, init: RequestInit) => Promise<Response>,
  [oauth.allowInsecureRequests]: new URL(issuer).protocol === 'http:',
})

/** An endpoint of a server that is itself reached by `https` is never in cleartext. */
export function usable(text: string | undefined, issuer: string): URL | null {
  if (text === undefined || !URL.canParse(text)) return null
  const url = new URL(text)
  const secure = url.protocol === 'https:' || (url.protocol === 'http:' && new URL(issuer).protocol === 'http:')
  return secure && url.username === '' && url.password === '' && url.hash === '' ? url : null
}

/** Codes of RFC 6749, RFC 7009 and RFC 8707 that may be repeated; what else a server writes may hold anything. */
const knownRefusals = [
  'access_denied', 'invalid_client', 'invalid_grant', 'invalid_request', 'invalid_scope', 'invalid_target', 'server_error',
  'temporarily_unavailable', 'unauthorized_client', 'unsupported_grant_type', 'unsupported_response_type',
  'invalid_redirect_uri', 'invalid_client_metadata', 'consent_required', 'login_required', 'interaction_required',
] as const // prettier-ignore
type Refusal = (typeof knownRefusals)[number] | 'unknown_error'

export const refusalOf = (code: unknown): Refusal => knownRefusals.find((known) => known === code) ?? 'unknown_error'

/** The authorization server understood, and said no. */
export class Refused extends AppError {
  readonly refusal: Refusal

  constructor(refusal: Refusal) {
    super('UPSTREAM_ERROR', `The authorization server of the service refused: ${refusal}.`, { extensions: { refusal } })
    this.refusal = refusal
  }
}

function nested(error: unknown): AppError | undefined {
  for (let depth = 0, at = error; depth < 6 && at instanceof Error; depth++, at = at.cause)
    if (at instanceof AppError) return at
  return undefined
}

/**
 * Any failure of an exchange with an authorization server as an error of ours. The library's errors carry whole answers,
 * tokens included, so none of them is kept as a cause; its kind and code are.
 */
export function authorizationFailure(error: unknown): AppError {
  const own = nested(error)
  if (own) return own
  if (error instanceof oauth.ResponseBodyError)
    // A server in trouble has not decided anything.
    return error.status >= 500 ? unreachable(error.code) : new Refused(refusalOf(error.error))
  if (error instanceof oauth.WWWAuthenticateChallengeError) return new Refused('invalid_client')
  const { name, code } =
    error instanceof Error ? { code: '', ...error, name: error.name } : { name: typeof error, code: '' }
  if (name === 'TimeoutError' || name === 'AbortError')
    return new AppError('UPSTREAM_TIMEOUT', 'The authorization server of the service did not answer in time.')
  return new AppError('UPSTREAM_ERROR', 'The authorization server of the service does not follow the protocol.', {
    cause: new Error(`${name} ${String(code)}`),
  })
}

const unreachable = (code: string): AppError =>
  new AppError('UPSTREAM_ERROR', 'The authorization server of the service is in trouble. Try again later.', {
    cause: new Error(code),
  })

/** Runs an exchange; what it throws is ours. */
export async function exchanged<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw authorizationFailure(error)
  }
}
