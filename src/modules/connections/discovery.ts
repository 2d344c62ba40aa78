import {
  checkResourceAllowed,
  discoverAuthorizationServerMetadata,
  discoverOAuthProtectedResourceMetadata,
  extractWWWAuthenticateParams,
  resourceUrlFromServerUrl,
} from '@modelcontextprotocol/client'
import type { AuthorizationServer } from 'oauth4webapi'
import { AppError } from '../../kernel/errors.ts'
import type { Platform } from '../../kernel/platform.ts'
import { boundedFetch, exchanged, usable } from './authorizationServer.ts'

/** What an upstream says about how it is authorized. Everything here comes from strangers, and was checked. */
export type Discovered = {
  server: AuthorizationServer
  /** The resource indicator of tokens (RFC 8707). */
  resource: string
  /** What to ask for; null asks for the server's default. */
  scope: string | null
}

const unfit = (sentence: string): AppError => new AppError('UPSTREAM_ERROR', sentence)
/** RFC 6749 §3.3. */
const scopeToken = /^[\x21\x23-\x5b\x5d-\x7e]+$/
const isScope = (text: string): boolean => text.split(' ').every((token) => scopeToken.test(token))
const maxScopeLength = 2000

/** What the upstream answers to a stranger: where its metadata is and which scopes it wants, if it says so (RFC 9728 §5.1). */
async function challenged(platform: Platform, endpoint: string, signal: AbortSignal | undefined) {
  const response = await boundedFetch(platform)(endpoint, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' }),
    redirect: 'manual',
    ...(signal ? { signal } : {}),
  })
  await response.body?.cancel()
  return response.status === 401 ? extractWWWAuthenticateParams(response) : {}
}

/**
 * Finds the authorization server of an upstream: protected-resource metadata (RFC 9728), then the server's own (RFC 8414 or
 * OpenID Connect Discovery). An upstream of before that metadata existed is its own issuer (MCP 2025-03-26). Every request
 * goes through the door that refuses private addresses; metadata speaks only for the origin that it was asked of.
 * @throws AppError `UPSTREAM_ERROR`, `UPSTREAM_TIMEOUT`
 */
export async function discover(
  platform: Platform,
  endpoint: string,
  preferredIssuer: string | null,
  signal?: AbortSignal,
): Promise<Discovered> {
  return exchanged(async () => {
    const challenge = await challenged(platform, endpoint, signal)
    const { issuer, resource, scopes } = await resourceOf(
      platform,
      endpoint,
      challenge.resourceMetadataUrl,
      preferredIssuer,
    )
    const metadata = await discoverAuthorizationServerMetadata(issuer, { fetchFn: fetchOf(platform) })
    if (!metadata) throw unfit('The service names an authorization server that publishes no metadata.')
    const server = metadata as AuthorizationServer
    assertFit(server, resource)
    return { server, resource, scope: scopeFor(server, challenge.scope ?? scopes?.join(' ')) }
  })
}

const fetchOf = (platform: Platform) => {
  const fetch = boundedFetch(platform)
  return (url: string | URL, init?: RequestInit) => fetch(url, init)
}

async function resourceOf(
  platform: Platform,
  endpoint: string,
  metadataUrl: URL | undefined,
  preferred: string | null,
) {
  const options = metadataUrl ? { resourceMetadataUrl: metadataUrl } : {}
  const found = await discoverOAuthProtectedResourceMetadata(endpoint, options, fetchOf(platform)).catch(
    (error: unknown) => {
      // Named and then not there is a fault; not named and not there is an older server.
      if (metadataUrl || !/does not implement/.test(error instanceof Error ? error.message : '')) throw error
      return null
    },
  )
  if (!found)
    return { issuer: new URL(endpoint).origin, resource: resourceUrlFromServerUrl(endpoint).href, scopes: undefined }
  // Otherwise an upstream could have the platform fetch tokens that are good at somebody else's server.
  if (!checkResourceAllowed({ requestedResource: endpoint, configuredResource: found.resource }))
    throw unfit('The metadata of the service speaks of another resource.')
  const servers = found.authorization_servers ?? []
  const issuer = servers.find((each) => sameIssuer(each, preferred)) ?? servers[0]
  if (issuer === undefined) throw unfit('The service names no authorization server.')
  return { issuer, resource: found.resource, scopes: found.scopes_supported }
}

/** A trailing slash of an origin is not a difference; everything else is. */
export const sameIssuer = (a: string, b: string | null): boolean =>
  b !== null && a.replace(/\/$/, '') === b.replace(/\/$/, '')

/** OAuth 2.1: the code grant with PKCE by S256, at addresses that a browser and the platform may use. */
function assertFit(server: AuthorizationServer, resource: string): void {
  const { issuer, authorization_endpoint, token_endpoint, response_types_supported } = server
  // RFC 9728 §4: a server that names its resources says which upstreams may ask for its tokens.
  const resources = server['protected_resources']
  if (Array.isArray(resources) && !resources.includes(resource))
    throw unfit('The authorization server of the service does not know the service.')
  if (!usable(authorization_endpoint, issuer) || !usable(token_endpoint, issuer))
    throw unfit('The authorization server of the service names addresses that cannot be used.')
  if (response_types_supported && !response_types_supported.includes('code'))
    throw unfit('The authorization server of the service has no authorization code grant.')
  if (!server.code_challenge_methods_supported?.includes('S256'))
    throw unfit('The authorization server of the service does not support PKCE with S256.')
}

/** The challenge's scopes, else the metadata's; and `offline_access` where the server knows it, for a refresh token. */
function scopeFor({ scopes_supported }: AuthorizationServer, wanted: string | undefined): string | null {
  if (wanted === undefined || wanted.length > maxScopeLength || !isScope(wanted)) return null
  const scopes = wanted.split(' ')
  const offline = scopes_supported?.includes('offline_access') && !scopes.includes('offline_access')
  return [...scopes, ...(offline ? ['offline_access'] : [])].join(' ')
}
