import { AppError } from '../kernel/errors.ts'

const prefix = '/.well-known/oauth-protected-resource'
const endpoint =
  /^\/mcp\/(?<organization>[a-z0-9-]{1,63})(?:|\/(?<service>[a-z0-9-]{1,63})|\/collections\/(?<collection>[a-z0-9-]{1,63}))$/

/** One service of an organisation, a collection of it, or, without either, all that the caller may use there. */
export type McpPath = { organization: string; service?: string | undefined; collection?: string | undefined }

export function mcpPath(pathname: string): McpPath | null {
  const { organization, service, collection } = endpoint.exec(pathname)?.groups ?? {}
  return organization === undefined ? null : { organization, service, collection }
}

/**
 * OAuth 2.0 Protected Resource Metadata (RFC 9728) of an MCP endpoint; null for any other path. It says the same for
 * every endpoint, whether one exists or not, so it tells nobody anything.
 */
export function resourceMetadata(publicUrl: string, pathname: string): object | null {
  if (!pathname.startsWith(prefix)) return null
  const resource = pathname.slice(prefix.length)
  if (!endpoint.test(resource)) return null
  return {
    resource: `${publicUrl}${resource}`,
    resource_name: 'MCP Online Platform',
    bearer_methods_supported: ['header'],
    scopes_supported: ['mcp:read', 'mcp:write'],
    jwks_uri: `${publicUrl}/.well-known/jwks.json`,
  }
}

/** `WWW-Authenticate` of a refusal (RFC 6750, section 3; RFC 9728, section 5.1): what is wrong, and which scope would do. */
export function challenge(
  publicUrl: string,
  pathname: string,
  error: AppError,
  presented: boolean,
): Record<string, string> {
  if (error.status !== 401 && error.status !== 403) return {}
  const requires = error.extensions['requires'] as { scopes?: readonly string[] } | undefined
  // A refusal for another reason (a page of another origin, no second factor) is not mended by any scope.
  if (error.status === 403 && !requires?.scopes?.length) return {}
  const kind = error.status === 403 ? 'insufficient_scope' : presented ? 'invalid_token' : null
  const scopes = requires?.scopes ?? (endpoint.test(pathname) ? ['mcp:read'] : [])
  const parts = [
    'realm="mcp"',
    ...(kind ? [`error="${kind}"`] : []),
    ...(scopes.length ? [`scope="${scopes.join(' ')}"`] : []),
    ...(endpoint.test(pathname) ? [`resource_metadata="${publicUrl}${prefix}${pathname}"`] : []),
  ]
  return { 'WWW-Authenticate': `Bearer ${parts.join(', ')}` }
}

/** Browsers name the page that calls. A page of another origin has no business here (MCP, Streamable HTTP, security warning). */
export function assertOwnOrigin(publicUrl: string, request: Request): void {
  const origin = request.headers.get('origin')
  if (origin !== null && origin !== new URL(publicUrl).origin)
    throw new AppError('FORBIDDEN', 'Requests from pages of other origins are refused.')
}
