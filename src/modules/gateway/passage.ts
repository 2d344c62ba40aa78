import { createHash } from 'node:crypto'
import { reaches, type Member } from '../../kernel/actor.ts'
import { AppError, notFound } from '../../kernel/errors.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'
import { connectedCredential, type ConnectionRow } from '../connections/queries.ts'
import { createGateway } from './gateway.ts'
import { hosting } from './hosting.ts'
import { records } from './records.ts'
import type { Gateway, Passage, UpstreamTarget } from './types.ts'

const mebibyte = 2 ** 20

/** This instance's gateway: pooled upstream connections, and a record of every call. */
export const gateway = resource((platform): Gateway => {
  const requestMs = platform.config.upstreamTimeoutSeconds * 1000
  const log = records(platform)
  return createGateway({
    fetch: (url, init) =>
      platform.outbound.fetch(url, { maxResponseBytes: 64 * mebibyte, bodyTimeoutMs: requestMs * 10, ...init }),
    record: (entry) => log.add(entry),
    clock: platform.clock,
    limits: {
      connectMs: Math.min(requestMs, 15_000),
      requestMs,
      maxConcurrentPerTarget: 64,
      poolIdleMs: 300_000,
      maxPool: 1000,
      maxResultBytes: 16 * mebibyte,
    },
    onWarning: ({ message, target, error }) =>
      platform.log.warn(
        { err: error, target: createHash('sha256').update(target).digest('hex').slice(0, 12) },
        message,
      ),
  })
})

type Row = {
  id: string
  slug: string
  endpoint: string
  hosted: string | null
  credentialMode: 'NONE' | 'SHARED' | 'PERSONAL'
  credentialKind: 'TOKEN' | 'OAUTH'
  credentialHeader: string
  trusted: boolean
  version: number
  policies: { tool: string; access: 'READ' | 'WRITE' | 'BLOCKED' }[]
  owner: string | null
  ciphertext: string | null
  stamp: string | null
  connection: ConnectionRow | null
}

// The service, its tool settings and the caller's credential, in one statement under the caller's own row level security.
const find = (platform: Platform, actor: Member, slug: string): Promise<Row[]> =>
  platform.database.read(
    actor,
    (tx) => tx.$queryRaw<Row[]>`
      SELECT s.id::text, s.slug, s.endpoint, s.hosted, s.credential_mode::text AS "credentialMode", s.credential_kind::text AS "credentialKind",
        s.credential_header AS "credentialHeader",
        s.trusted, s.version, c.owner, c.ciphertext, extract(epoch FROM c.updated_at)::text AS stamp,
        CASE WHEN s.credential_kind = 'OAUTH' THEN (SELECT to_json(o) FROM app.service_connection(s.id) o) END AS connection,
        (SELECT coalesce(json_agg(json_build_object('tool', p.tool, 'access', p.access)), '[]') FROM tool_policies p WHERE p.service_id = s.id) AS policies
      FROM services s LEFT JOIN LATERAL app.service_credential(s.id) c ON true
      WHERE s.org_id = ${actor.orgId}::uuid AND s.slug = ${slug} AND s.enabled`,
  )

/** The caller's way to one service. The same `NOT_FOUND` for a service that is absent, disabled or another organisation's. */
export async function passageTo(platform: Platform, actor: Member, slug: string): Promise<Passage> {
  const [row] = await find(platform, actor, slug)
  if (!row || !reaches(actor, row.id)) throw notFound('service')
  return {
    actor,
    orgId: actor.orgId,
    serviceId: row.id,
    serviceSlug: row.slug,
    trusted: row.trusted,
    toolAccess: new Map(row.policies.map(({ tool, access }) => [tool, access])),
    target: await targetOf(platform, actor, row),
  }
}

async function targetOf(platform: Platform, actor: Member, row: Row): Promise<UpstreamTarget> {
  if (row.credentialKind === 'OAUTH' && row.credentialMode !== 'NONE' && row.hosted === null)
    return connectedTarget(platform, actor, row)
  const token = credentialOf(platform, actor, row)
  const key = [row.id, row.version, row.owner ?? 'none', row.stamp ?? ''].join('/')
  if (row.hosted !== null) {
    const tenancy = { organizationId: actor.orgId, serviceId: row.id, userId: actor.userId, credential: token }
    return hosting(platform).target(row.hosted, key, tenancy)
  }
  const headers = new Map<string, Secret>()
  if (token) {
    const bearer = row.credentialHeader === 'authorization'
    headers.set(row.credentialHeader, bearer ? new Secret(`Bearer ${token.reveal()}`) : token)
  }
  return { key, endpoint: new URL(row.endpoint), headers }
}

/** With the token of a connected account, which may be renewed while the upstream is spoken to. */
async function connectedTarget(platform: Platform, { orgId, userId }: Member, row: Row): Promise<UpstreamTarget> {
  const owner = row.credentialMode === 'SHARED' ? 'shared' : userId
  const of = { orgId, serviceId: row.id, owner }
  const { key, ...credential } = await connectedCredential(platform, of, row.connection)
  return { key: [row.id, row.version, owner, key].join('/'), endpoint: new URL(row.endpoint), ...credential }
}

function credentialOf(platform: Platform, actor: Member, row: Row): Secret | undefined {
  if (row.credentialMode === 'NONE') return undefined
  if (!row.owner || !row.ciphertext)
    throw new AppError('SERVICE_UNCONFIGURED', row.credentialMode === 'PERSONAL'
      ? 'This service needs your own token first: storeServiceToken.'
      : 'This service needs the organisation’s token first: storeSharedToken.') // prettier-ignore
  return platform.vault.open('serviceToken', [actor.orgId, row.owner, row.id], row.ciphertext)
}
