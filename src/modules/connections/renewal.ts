import { randomUUID } from 'node:crypto'
import { system } from '../../kernel/actor.ts'
import { appendAudit } from '../../kernel/audit.ts'
import { AppError } from '../../kernel/errors.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import type { Secret } from '../../kernel/secret.ts'
import { Refused } from './authorizationServer.ts'
import { opened } from './clients.ts'
import { refreshTokens } from './grants.ts'
import { openToken, sealTokens, type Ownership } from './tokens.ts'

/** An access token and how it is told from the ones before it. */
export type Access = { token: Secret; version: number; expiresAt: Date | null }

/** What a caller is told when only their own doing helps: the verb that connects the account again. */
export const mustConnect = ({ owner }: Pick<Ownership, 'owner'>, why: string): AppError => {
  const verb = owner === 'shared' ? 'connectSharedService' : 'connectService'
  return new AppError('SERVICE_UNCONFIGURED', `${why}: ${verb}.`, { extensions: { connect: verb } })
}

const leaseSlackSeconds = 5
const pauseMs = 100

const running = resource(() => ({ renewals: new Map<string, Promise<Access>>() }))

/**
 * New tokens for a connection whose version was found wanting. One exchange for however many ask: those of this instance
 * share it, and a lease in the connection's row keeps the others waiting for what its holder stores. No transaction is
 * open while the authorization server is asked.
 * @throws AppError `SERVICE_UNCONFIGURED` where the account must be connected again, `UPSTREAM_*` where it may help to wait
 */
export function renew(platform: Platform, id: string, of: Ownership, stale: number): Promise<Access> {
  const { renewals } = running(platform)
  const key = `${id}/${stale}`
  const known = renewals.get(key)
  if (known) return known
  const renewal = renewed(platform, id, of, stale).finally(() => renewals.delete(key))
  renewals.set(key, renewal)
  return renewal
}

async function renewed(platform: Platform, id: string, of: Ownership, stale: number): Promise<Access> {
  const leaseSeconds = platform.config.oauthTimeoutSeconds + leaseSlackSeconds
  const giveUpAt = Date.now() + 2 * leaseSeconds * 1000
  while (Date.now() < giveUpAt) {
    const lease = randomUUID()
    if (await takeLease(platform, id, stale, lease, leaseSeconds)) return exchangeUnderLease(platform, id, of, lease)
    const row = await platform.database.read(system(), (tx) =>
      tx.oauthConnection.findFirst({ where: { id }, select: { version: true, sealedAccess: true, expiresAt: true, brokenAt: true } }),
    ) // prettier-ignore
    if (!row || row.brokenAt || row.sealedAccess === null) throw mustConnect(of, 'The account must be connected again')
    if (row.version !== stale)
      return { token: openToken(platform.vault, of, 'access', row.sealedAccess), version: row.version, expiresAt: row.expiresAt } // prettier-ignore
    await new Promise((resolve) => setTimeout(resolve, pauseMs))
  }
  throw new AppError('UPSTREAM_TIMEOUT', 'The authorization server of the service did not answer in time.')
}

/** By the database's clock, which all instances share. */
const takeLease = async ({ database }: Platform, id: string, stale: number, lease: string, seconds: number): Promise<boolean> =>
  (await database.transact(system(), (tx) => tx.$executeRaw`
    UPDATE oauth_connections SET lease = ${lease}::uuid, lease_until = now() + make_interval(secs => ${seconds}::double precision)
    WHERE id = ${id}::uuid AND version = ${stale} AND broken_at IS NULL AND (lease_until IS NULL OR lease_until < now())`)) === 1 // prettier-ignore

const held = {
  orgId: true,
  serviceId: true,
  version: true,
  issuer: true,
  tokenEndpoint: true,
  revocationEndpoint: true,
  resource: true,
  scope: true,
  sealedRefresh: true,
  client: { select: { id: true, source: true, issuer: true, clientId: true, authMethod: true, sealedSecret: true } },
} as const

async function exchangeUnderLease(platform: Platform, id: string, of: Ownership, lease: string): Promise<Access> {
  const row = await platform.database.read(system(), (tx) =>
    tx.oauthConnection.findFirst({ where: { id, lease }, select: held }),
  )
  if (!row) throw mustConnect(of, 'The account must be connected again')
  try {
    if (row.sealedRefresh === null) throw new Refused('invalid_grant')
    const client = opened(platform, row.orgId, row.serviceId, row.client)
    const refresh = openToken(platform.vault, of, 'refresh', row.sealedRefresh)
    const tokens = await refreshTokens(platform, client, row, row.resource, refresh)
    const version = row.version + 1
    const { count } = await platform.database.transact(system(), (tx) =>
      tx.oauthConnection.updateMany({
        where: { id, lease },
        data: { ...sealTokens(platform.vault, of, tokens), scope: tokens.scope ?? row.scope, version, lease: null, leaseUntil: null }, // prettier-ignore
      }),
    )
    // Disconnected, or connected anew, meanwhile: what was just given belongs to nobody.
    if (count !== 1) throw mustConnect(of, 'The account must be connected again')
    return { token: tokens.access, version, expiresAt: tokens.expiresAt }
  } catch (error) {
    throw await afterFailure(platform, { id, of, lease, client: row.client }, error)
  }
}

type Failed = { id: string; of: Ownership; lease: string; client: { id: string; source: string } }

/** A server that is away changes nothing. One that refused has ended the connection, or does not know the client any more. */
async function afterFailure(platform: Platform, { id, of, lease, client }: Failed, error: unknown): Promise<unknown> {
  const refusal = error instanceof Refused ? error.refusal : null
  if (refusal === null || refusal === 'server_error' || refusal === 'temporarily_unavailable') {
    await platform.database.transact(system(), (tx) => tx.oauthConnection.updateMany({ where: { id, lease }, data: { lease: null, leaseUntil: null } })) // prettier-ignore
    return error
  }
  const now = platform.clock()
  const clientIsGone = refusal === 'invalid_client' && client.source === 'DYNAMIC'
  const clientIsWrong = refusal === 'invalid_client' && !clientIsGone
  await platform.database.transact(system(), async (tx) => {
    // A client that registered itself does so again at the next connection.
    if (clientIsGone) await tx.oauthClient.deleteMany({ where: { id: client.id } })
    const ended = clientIsWrong ? {} : { sealedAccess: null, sealedRefresh: null, brokenAt: now }
    await tx.oauthConnection.updateMany({ where: { id, lease }, data: { ...ended, lease: null, leaseUntil: null } })
    const who = { orgId: of.orgId, ...(of.owner === 'shared' ? {} : { userId: of.owner }) }
    await appendAudit(tx, system(), { action: 'serviceConnection.broken', target: of.serviceId, detail: { refusal }, ...who }, 'failed', now) // prettier-ignore
  })
  return clientIsWrong
    ? new AppError('SERVICE_UNCONFIGURED', 'The authorization server of the service no longer knows the client of this platform. An administrator must enter it again: setOAuthClient.') // prettier-ignore
    : mustConnect(of, 'The account must be connected again')
}
