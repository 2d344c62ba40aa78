import * as oauth from 'oauth4webapi'
import { AppError } from '../../kernel/errors.ts'
import type { Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'
import { exchanged, Refused, refusalOf, through } from './authorizationServer.ts'
import { asClient, authenticationOf, type OauthClient } from './clients.ts'

/** What a connection keeps of its authorization server. */
export type Endpoints = { issuer: string; tokenEndpoint: string; revocationEndpoint: string | null }

export type Tokens = { access: Secret; refresh: Secret | null; expiresAt: Date | null; scope: string | null }

const serverOf = ({ issuer, tokenEndpoint, revocationEndpoint }: Endpoints): oauth.AuthorizationServer => ({
  issuer,
  token_endpoint: tokenEndpoint,
  ...(revocationEndpoint === null ? {} : { revocation_endpoint: revocationEndpoint }),
})

const longestLifeSeconds = 10 * 365 * 86_400
// It becomes a header's value (RFC 6750 §2.1, loosely: issuers in use go beyond b64token).
const headerValue = /^[\x21-\x7e]{1,16384}$/

function tokensOf(answer: oauth.TokenEndpointResponse, now: Date): Tokens {
  if (answer.token_type !== 'bearer' || !headerValue.test(answer.access_token))
    throw new AppError('UPSTREAM_ERROR', 'The authorization server of the service gave a token that cannot be used.')
  const seconds = answer.expires_in
  return {
    access: new Secret(answer.access_token),
    refresh: answer.refresh_token === undefined ? null : new Secret(answer.refresh_token),
    expiresAt: seconds === undefined ? null : new Date(now.getTime() + Math.min(seconds, longestLifeSeconds) * 1000),
    scope: answer.scope?.slice(0, 2000) ?? null,
  }
}

export type AuthorizationAnswer = {
  code?: string | undefined
  state: string
  iss?: string | undefined
  error?: string | undefined
}

/** What the answer must fit: recorded when the question was asked. */
export type Expected = Endpoints & { issRequired: boolean; verifier: Secret; redirectUri: string; resource: string }

/**
 * Checks that the answer comes from the server that was asked (RFC 9207), then changes its code for tokens.
 * @throws AppError `BAD_USER_INPUT` for an answer of another server or without a code; `UPSTREAM_*`
 */
export async function exchangeCode(
  platform: Platform,
  client: OauthClient,
  expected: Expected,
  answer: AuthorizationAnswer,
): Promise<Tokens> {
  const server = {
    ...serverOf(expected),
    ...(expected.issRequired ? { authorization_response_iss_parameter_supported: true } : {}),
  }
  const parameters = validated(server, client, answer)
  const now = platform.clock()
  return exchanged(async () => {
    const response = await oauth.authorizationCodeGrantRequest(
      server,
      asClient(client),
      authenticationOf(client),
      parameters,
      expected.redirectUri,
      expected.verifier.reveal(),
      { ...through(platform, server), additionalParameters: { resource: expected.resource } },
    )
    return tokensOf(await oauth.processAuthorizationCodeResponse(server, asClient(client), response), now)
  })
}

function validated(
  server: oauth.AuthorizationServer,
  client: OauthClient,
  answer: AuthorizationAnswer,
): URLSearchParams {
  const given = Object.entries(answer).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))
  try {
    return oauth.validateAuthResponse(server, asClient(client), new URLSearchParams(given), answer.state)
  } catch (error) {
    if (error instanceof oauth.AuthorizationResponseError) throw new Refused(refusalOf(error.error))
    throw new AppError('BAD_USER_INPUT', 'iss: the answer is not from the authorization server that was asked', {
      extensions: {
        issues: [{ path: ['iss'], message: 'the answer is not from the authorization server that was asked' }],
      },
    })
  }
}

/** New tokens for a refresh token. A server that rotates gives a new one; else the old one stays good. */
export async function refreshTokens(
  platform: Platform,
  client: OauthClient,
  endpoints: Endpoints,
  resource: string,
  refresh: Secret,
): Promise<Tokens> {
  const server = serverOf(endpoints)
  const now = platform.clock()
  return exchanged(async () => {
    const response = await oauth.refreshTokenGrantRequest(
      server,
      asClient(client),
      authenticationOf(client),
      refresh.reveal(),
      {
        ...through(platform, server),
        additionalParameters: { resource },
      },
    )
    const tokens = tokensOf(await oauth.processRefreshTokenResponse(server, asClient(client), response), now)
    return { ...tokens, refresh: tokens.refresh ?? refresh }
  })
}

/** Tells the server that a token is no longer wanted (RFC 7009). Nothing, where it has no such endpoint. */
export async function revokeToken(
  platform: Platform,
  client: OauthClient,
  endpoints: Endpoints,
  kind: 'refresh_token' | 'access_token',
  token: Secret,
): Promise<void> {
  if (endpoints.revocationEndpoint === null) return
  const server = serverOf(endpoints)
  await exchanged(async () => {
    const response = await oauth.revocationRequest(server, asClient(client), authenticationOf(client), token.reveal(), {
      ...through(platform, server),
      additionalParameters: { token_type_hint: kind },
    })
    await oauth.processRevocationResponse(response)
  })
}
