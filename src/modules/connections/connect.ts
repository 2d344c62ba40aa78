import { createHash } from 'node:crypto'
import * as oauth from 'oauth4webapi'
import { z } from 'zod'
import type { Member } from '../../kernel/actor.ts'
import { system } from '../../kernel/actor.ts'
import { appendAudit } from '../../kernel/audit.ts'
import { AppError, badInput, notFound } from '../../kernel/errors.ts'
import type { Call } from '../../kernel/operation.ts'
import type { Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'
import { throttle } from '../../kernel/throttle.ts'
import { usable } from './authorizationServer.ts'
import { clientFor, redirectUri, registeredIssuer, type OauthClient } from './clients.ts'
import { discover, type Discovered } from './discovery.ts'

/** Each attempt makes the platform ask strangers' servers, and may leave a client there. */
const attempts = throttle('connectService', ({ oauthAttemptsPerUserPerHour }) => ({
  limit: oauthAttemptsPerUserPerHour,
  windowSeconds: 3600,
  withoutStore: 'local',
}))

/** What is kept, sealed, of a question until its answer comes. */
export const questionShape = z.object({
  issuer: z.string(),
  issRequired: z.boolean(),
  tokenEndpoint: z.string(),
  revocationEndpoint: z.string().nullable(),
  redirectUri: z.string(),
  resource: z.string(),
  scope: z.string().nullable(),
  verifier: z.string(),
})
type Question = z.infer<typeof questionShape>

export const stateHash = (state: string): string => createHash('sha256').update(state).digest('base64url')

export const questionBinding = (actor: Member, serviceId: string, hash: string): string[] => [
  actor.orgId,
  actor.userId,
  serviceId,
  'authorization',
  hash,
]

export type Begun = { authorizationUrl: string; expiresAt: Date }
export type Owner = 'own' | 'shared'

/** The service as its caller sees it; null for one that they do not. Refuses a credential that has ended. */
export const serviceOf = ({ platform }: Call, actor: Member, serviceId: string) =>
  platform.database.read(actor, (tx) =>
    tx.service.findFirst({
      where: { id: serviceId },
      select: { id: true, orgId: true, endpoint: true, credentialKind: true, credentialMode: true, hosted: true },
    }),
  )
type Service = NonNullable<Awaited<ReturnType<typeof serviceOf>>>

/** Throws where a service takes no accounts of this owner. */
export function assertTakes({ credentialKind, credentialMode, hosted }: Service, owner: Owner): void {
  const message =
    hosted !== null ? 'this service is a process of the operator’s and takes no connected accounts'
    : credentialKind !== 'OAUTH' ? 'this service takes no connected accounts: its credentialKind is TOKEN'
    : owner === 'own' && credentialMode !== 'PERSONAL' ? 'this service uses no accounts of its users: see connectSharedService'
    : owner === 'shared' && credentialMode !== 'SHARED' ? 'this service uses no account of the organisation: see connectService'
    : null // prettier-ignore
  if (message) throw badInput([{ path: ['serviceId'], message }])
}

/**
 * Begins to connect an account: finds the authorization server, makes sure of a client there, keeps the question and
 * answers with the address that the user's browser is to visit.
 */
export async function beginConnection(call: Call, actor: Member, serviceId: string, owner: Owner): Promise<Begun> {
  const { platform, signal, now } = call
  const service = await serviceOf(call, actor, serviceId)
  if (!service) throw notFound('service')
  assertTakes(service, owner)
  await attempts(platform)?.consume(actor.userId)
  const found = await discover(platform, service.endpoint, await registeredIssuer(platform, actor, service.id), signal)
  const client = await clientFor(platform, actor, service, found.server)
  const state = oauth.generateRandomState()
  const question = questionOf(platform, service.id, found)
  const expiresAt = new Date(now.getTime() + platform.config.oauthAuthorizationSeconds * 1000)
  const hash = stateHash(state)
  await platform.database.transact(system(actor.origin), async (tx) => {
    await tx.oauthAuthorization.deleteMany({ where: { userId: actor.userId, expiresAt: { lte: now } } })
    const sealed = platform.vault.seal('serviceToken', questionBinding(actor, service.id, hash), new Secret(JSON.stringify(question))) // prettier-ignore
    const { orgId, userId, credentialId: sessionId } = actor
    const keys = { stateHash: hash, orgId, userId, sessionId, serviceId: service.id, clientId: client.id }
    await tx.oauthAuthorization.createMany({ data: [{ ...keys, shared: owner === 'shared', sealed, createdAt: now, expiresAt }] }) // prettier-ignore
    const detail = { issuer: found.server.issuer, shared: owner === 'shared' }
    await appendAudit(tx, actor, { action: 'serviceConnection.begun', target: service.id, detail }, 'ok', now)
  })
  return { authorizationUrl: await authorizationUrl(found, client, question, state), expiresAt }
}

function questionOf({ publicUrl }: Platform, serviceId: string, { server, resource, scope }: Discovered): Question {
  return {
    issuer: server.issuer,
    issRequired: server.authorization_response_iss_parameter_supported === true,
    tokenEndpoint: server.token_endpoint ?? '',
    revocationEndpoint: usable(server.revocation_endpoint, server.issuer)?.href ?? null,
    redirectUri: redirectUri(publicUrl, serviceId),
    resource,
    scope,
    verifier: oauth.generateRandomCodeVerifier(),
  }
}

async function authorizationUrl(
  { server }: Discovered,
  client: OauthClient,
  question: Question,
  state: string,
): Promise<string> {
  const url = usable(server.authorization_endpoint, server.issuer)
  if (!url) throw new AppError('UPSTREAM_ERROR', 'The authorization server of the service names no address to visit.')
  const { scope, redirectUri, resource, verifier } = question
  const parameters = {
    response_type: 'code',
    client_id: client.clientId,
    redirect_uri: redirectUri,
    state,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    resource,
    ...(scope === null ? {} : { scope }),
    // OpenID Connect Core §11: without it a request for offline access is ignored.
    ...(scope?.split(' ').includes('offline_access') ? { prompt: 'consent' } : {}),
  }
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value)
  return url.href
}
