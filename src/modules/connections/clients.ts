import { selectClientAuthMethod } from '@modelcontextprotocol/client'
import * as oauth from 'oauth4webapi'
import { system, type Member } from '../../kernel/actor.ts'
import { AppError } from '../../kernel/errors.ts'
import type { Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'
import { exchanged, through, usable } from './authorizationServer.ts'
import { sameIssuer } from './discovery.ts'

/**
 * Each service has a redirect URI of its own, so that an answer says which service it is for. Where an authorization server
 * does not name itself in its answers (RFC 9207), this is what keeps a code of one from being sent to another (RFC 9700 §4.4.2).
 */
export const redirectUri = (publicUrl: string, serviceId: string): string => `${publicUrl}/oauth/callback/${serviceId}`

export const clientDocumentUrl = (publicUrl: string, serviceId: string): string =>
  `${publicUrl}/oauth/clients/${serviceId}.json`

/** What the platform says of itself: the document behind its client id, and the request when it registers. */
const selfDescription = ({ publicUrl, config }: Platform, serviceId: string) => ({
  client_name: config.oauthClientName,
  client_uri: publicUrl,
  redirect_uris: [redirectUri(publicUrl, serviceId)],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  application_type: 'web',
})

/** The client id metadata document of a service; it says the same whether there is such a service or not. */
export const clientDocument = (platform: Platform, serviceId: string): object => ({
  client_id: clientDocumentUrl(platform.publicUrl, serviceId),
  ...selfDescription(platform, serviceId),
  token_endpoint_auth_method: 'none',
})

export type OauthClient = {
  id: string
  source: 'REGISTERED' | 'DOCUMENT' | 'DYNAMIC'
  issuer: string
  clientId: string
  authMethod: string
  secret: Secret | null
}

const boundTo = (orgId: string, serviceId: string, issuer: string): string[] => [orgId, serviceId, 'client', issuer]

export const sealSecret = (
  { vault }: Platform,
  orgId: string,
  serviceId: string,
  issuer: string,
  secret: Secret,
): string => vault.seal('serviceToken', boundTo(orgId, serviceId, issuer), secret)

const columns = { id: true, source: true, issuer: true, clientId: true, authMethod: true, sealedSecret: true } as const
type Row = Omit<OauthClient, 'secret'> & { sealedSecret: string | null }

export function opened(
  { vault }: Platform,
  orgId: string,
  serviceId: string,
  { sealedSecret, ...row }: Row,
): OauthClient {
  const secret =
    sealedSecret === null ? null : vault.open('serviceToken', boundTo(orgId, serviceId, row.issuer), sealedSecret)
  return { ...row, secret }
}

/** A client as the protocol's library takes it. */
export const asClient = ({ clientId }: Pick<OauthClient, 'clientId'>): oauth.Client => ({ client_id: clientId })

export function authenticationOf({ authMethod, secret }: Pick<OauthClient, 'authMethod' | 'secret'>): oauth.ClientAuth {
  if (!secret) return oauth.None()
  return authMethod === 'client_secret_post'
    ? oauth.ClientSecretPost(secret.reveal())
    : oauth.ClientSecretBasic(secret.reveal())
}

type ServiceRef = { id: string; orgId: string }

/** The issuer whose client an administrator entered for this service, if any. */
export async function registeredIssuer(
  { database }: Platform,
  actor: Member,
  serviceId: string,
): Promise<string | null> {
  const row = await database.read(system(actor.origin), (tx) =>
    tx.oauthClient.findFirst({
      where: { serviceId, orgId: actor.orgId, source: 'REGISTERED' },
      select: { issuer: true },
    }),
  )
  return row?.issuer ?? null
}

/**
 * What the platform is to this authorization server, by the order of MCP 2026-07-28: the client that an administrator
 * registered; a client id metadata document, where the server takes those and can reach ours; a client that the platform
 * registers by itself. Each stays with its issuer.
 * @throws AppError `SERVICE_UNCONFIGURED` where none of the three is possible
 */
export async function clientFor(
  platform: Platform,
  actor: Member,
  service: ServiceRef,
  server: oauth.AuthorizationServer,
): Promise<OauthClient> {
  const rows = await platform.database.read(system(actor.origin), (tx) =>
    tx.oauthClient.findMany({
      where: { serviceId: service.id, orgId: service.orgId },
      select: { ...columns, expiresAt: true },
    }),
  )
  const registered = rows.find(({ source }) => source === 'REGISTERED')
  if (registered && !sameIssuer(registered.issuer, server.issuer))
    throw new AppError('SERVICE_UNCONFIGURED', 'The service has moved to another authorization server than the one that its client is registered with. An administrator must register a client there: setOAuthClient.') // prettier-ignore
  const now = platform.clock()
  const dynamic = rows.find(({ source, issuer, expiresAt }) => source === 'DYNAMIC' && issuer === server.issuer && (!expiresAt || expiresAt > now)) // prettier-ignore
  const byDocument = server['client_id_metadata_document_supported'] === true && platform.publicUrl.startsWith('https:')
  const known = registered ?? (byDocument ? rows.find(({ source, issuer }) => source === 'DOCUMENT' && issuer === server.issuer) : dynamic) // prettier-ignore
  if (known) return opened(platform, service.orgId, service.id, known)
  if (byDocument) return keep(platform, actor, service, documentClient(platform, service, server))
  if (usable(server.registration_endpoint, server.issuer))
    return keep(platform, actor, service, await register(platform, service, server))
  throw new AppError('SERVICE_UNCONFIGURED', 'The authorization server of this service knows no clients but registered ones. An administrator must register one there and enter it: setOAuthClient.') // prettier-ignore
}

type NewClient = Omit<OauthClient, 'id'> & { expiresAt: Date | null }

const documentClient = (
  { publicUrl }: Platform,
  { id }: ServiceRef,
  { issuer }: oauth.AuthorizationServer,
): NewClient => ({
  source: 'DOCUMENT',
  issuer,
  clientId: clientDocumentUrl(publicUrl, id),
  authMethod: 'none',
  secret: null,
  expiresAt: null,
})

/** Dynamic client registration (RFC 7591): as a public client where the server allows it, since PKCE protects the code. */
async function register(platform: Platform, { id }: ServiceRef, server: oauth.AuthorizationServer): Promise<NewClient> {
  const methods = server.token_endpoint_auth_methods_supported ?? ['client_secret_basic']
  const wanted = ['none', 'client_secret_basic', 'client_secret_post'].find((method) => methods.includes(method)) ?? 'client_secret_basic' // prettier-ignore
  const made = await exchanged(async () =>
    oauth.processDynamicClientRegistrationResponse(
      await oauth.dynamicClientRegistrationRequest(
        server,
        { ...selfDescription(platform, id), token_endpoint_auth_method: wanted },
        through(platform, server),
      ),
    ),
  )
  const expires = Number(made['client_secret_expires_at'] ?? 0)
  const secret = typeof made.client_secret === 'string' ? new Secret(made.client_secret) : null
  return {
    source: 'DYNAMIC',
    issuer: server.issuer,
    clientId: made.client_id,
    authMethod: methodFor(
      made.token_endpoint_auth_method ?? (secret ? undefined : 'none'),
      made.client_id,
      secret,
      server,
    ),
    secret,
    expiresAt: secret && expires > 0 ? new Date(expires * 1000) : null,
  }
}

/** How a client proves itself at the token endpoint, by what was registered and what the server supports. */
export const methodFor = (
  registered: unknown,
  clientId: string,
  secret: Secret | null,
  server: Pick<oauth.AuthorizationServer, 'token_endpoint_auth_methods_supported'>,
): string =>
  selectClientAuthMethod(
    {
      client_id: clientId,
      ...(secret ? { client_secret: secret.reveal() } : {}),
      ...(typeof registered === 'string' ? { token_endpoint_auth_method: registered } : {}),
    },
    server.token_endpoint_auth_methods_supported ?? [],
  )

/** Of two that register at once, the first is kept and both use it. */
async function keep(platform: Platform, actor: Member, service: ServiceRef, made: NewClient): Promise<OauthClient> {
  const { secret, ...values } = made
  const sealedSecret = secret ? sealSecret(platform, service.orgId, service.id, made.issuer, secret) : null
  const key = { serviceId: service.id, source: made.source, issuer: made.issuer }
  return platform.database.transact(system(actor.origin), async (tx) => {
    await tx.oauthClient.deleteMany({ where: { ...key, expiresAt: { lte: platform.clock() } } })
    await tx.oauthClient.createMany({
      data: [{ ...values, ...key, orgId: service.orgId, sealedSecret, createdAt: platform.clock() }],
      skipDuplicates: true,
    })
    const kept = await tx.oauthClient.findFirstOrThrow({ where: key, select: columns })
    return opened(platform, service.orgId, service.id, kept)
  })
}
