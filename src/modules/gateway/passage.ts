import { createHash } from 'node:crypto'
import { reaches, type Member } from '../../kernel/actor.ts'
import { sql } from '../../kernel/database/door.ts'
import { claimsOf } from '../../kernel/database/identity.ts'
import { AppError, notFound } from '../../kernel/errors.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'
import { Sharing } from '../../kernel/sharing.ts'
import type { Tracing } from '../../kernel/tracing.ts'
import { connectedCredential, type ConnectionRow } from '../connections/queries.ts'
import { admission } from './admission.ts'
import { createGateway } from './gateway.ts'
import { hosting } from './hosting.ts'
import { pinBooks, pinTools } from './pins.ts'
import { records } from './records.ts'
import type { Gathered, Gateway, GatewayOptions, Gathering, Passage, PinBook, UpstreamTarget } from './types.ts'

const mebibyte = 2 ** 20

/** Spans of calls to upstreams. A resource's address is content, so only tools and prompts are named. */
const tracedBy =
  (tracing: Tracing): NonNullable<GatewayOptions['trace']> =>
  ({ actor, serviceSlug }, { method, name }) => {
    const span = tracing.piece(actor.origin, 'CLIENT', name === undefined ? method : `${method} ${name}`, {
      'mcp.method.name': method,
      'mcp_platform.service': serviceSlug,
      ...(name === undefined ? {} : { [method === 'tools/call' ? 'gen_ai.tool.name' : 'gen_ai.prompt.name']: name }),
    })
    return {
      traceparent: span.traceparent,
      end: (status) => span.end({ 'mcp_platform.outcome': status }, status === 'ok' ? null : status),
    }
  }

/** This instance's gateway: pooled upstream connections, and a record of every call. */
export const gateway = resource((platform): Gateway => {
  const requestMs = platform.config.upstreamTimeoutSeconds * 1000
  const log = records(platform)
  return createGateway({
    fetch: (url, init) =>
      platform.outbound.fetch(url, { maxResponseBytes: 64 * mebibyte, bodyTimeoutMs: requestMs * 10, ...init }),
    send: (url, asked) => platform.outbound.exchange(url, asked, { maxResponseBytes: 64 * mebibyte, ...asked }),
    record: (entry) => log.add(entry),
    admission: admission(platform),
    pin: (passage, tools) => pinTools(platform, passage, tools),
    trace: platform.tracing ? tracedBy(platform.tracing) : undefined,
    clock: platform.clock,
    limits: {
      connectMs: Math.min(requestMs, 15_000),
      requestMs,
      maxConcurrentPerTarget: 64,
      poolIdleMs: 300_000,
      maxPool: 1000,
      maxResultBytes: 16 * mebibyte,
      fanOutMs: Math.min(requestMs, 5000),
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
  selection: string[] | null
  pinsVersion: number
  blockSecrets: boolean
  hideChangedTools: boolean
  owner: string | null
  ciphertext: string | null
  stamp: string | null
  connection: ConnectionRow | null
}

/** Which services: those of some slugs, or all; and what a collection chose of them. */
type Wanted = { slugs?: readonly string[]; collectionId?: string }

/** The most services that stand under one address. */
const maxGathered = 200

// The services, their tool settings and the caller's credentials, in one statement under the caller's own row level security.
const find = (platform: Platform, actor: Member, { slugs, collectionId }: Wanted): Promise<Row[]> =>
  platform.database.statement<Row>(
    actor,
    sql`
      SELECT s.id::text, s.slug, s.endpoint, s.hosted, s.credential_mode::text AS "credentialMode", s.credential_kind::text AS "credentialKind",
        s.credential_header AS "credentialHeader",
        s.trusted, s.version, s.pins_version AS "pinsVersion", o.block_credentials AS "blockSecrets",
        o.hide_changed_tools AS "hideChangedTools", c.owner, c.ciphertext, extract(epoch FROM c.updated_at)::text AS stamp,
        CASE WHEN s.credential_kind = 'OAUTH' THEN (SELECT to_json(k) FROM app.service_connection(s.id) k) END AS connection,
        (SELECT coalesce(json_agg(json_build_object('tool', p.tool, 'access', p.access)), '[]') FROM tool_policies p WHERE p.service_id = s.id) AS policies,
        (SELECT json_agg(t.tool) FROM collection_tools t WHERE t.service_id = s.id AND t.collection_id = ${collectionId ?? null}::uuid) AS selection
      FROM services s JOIN organizations o ON o.id = s.org_id LEFT JOIN LATERAL app.service_credential(s.id) c ON true
      WHERE s.org_id = ${actor.orgId}::uuid AND s.enabled AND (${slugs ?? null}::text[] IS NULL OR s.slug = ANY (${slugs ?? null}::text[]))
        AND (${collectionId ?? null}::uuid IS NULL OR EXISTS (SELECT FROM collection_tools t WHERE t.service_id = s.id AND t.collection_id = ${collectionId ?? null}::uuid))
      ORDER BY s.slug COLLATE "C" LIMIT ${Math.max(maxGathered, slugs?.length ?? 0)}`,
  )

type Found = { row: Row; pins: PinBook }

const ways = resource(() => new Sharing<Found | null>())

async function findOne(platform: Platform, actor: Member, slug: string, wanted: Wanted): Promise<Found | null> {
  const [row] = await find(platform, actor, { ...wanted, slugs: [slug] })
  if (!row || !reaches(actor, row.id)) return null
  const books = await pinBooks(platform, actor, [row])
  return { row, pins: books.get(row.id) ?? new Map() }
}

function credentialOf(platform: Platform, actor: Member, row: Row): Secret | undefined {
  if (row.credentialMode === 'NONE') return undefined
  if (!row.owner || !row.ciphertext)
    throw new AppError('SERVICE_UNCONFIGURED', row.credentialMode === 'PERSONAL'
      ? 'This service needs your own token first: storeServiceToken.'
      : 'This service needs the organisation’s token first: storeSharedToken.') // prettier-ignore
  return platform.vault.open('serviceToken', [actor.orgId, row.owner, row.id], row.ciphertext)
}

async function targetOf(platform: Platform, actor: Member, row: Row): Promise<UpstreamTarget> {
  if (row.credentialKind === 'OAUTH' && row.credentialMode !== 'NONE' && row.hosted === null)
    return connectedTarget(platform, actor, row)
  const token = credentialOf(platform, actor, row)
  const key = [row.id, row.version, row.owner ?? 'none', row.stamp ?? ''].join('/')
  const upstream = `${row.id}/${row.version}`
  if (row.hosted !== null) {
    const tenancy = { organizationId: actor.orgId, serviceId: row.id, userId: actor.userId, credential: token }
    // A process of one user says nothing of another's, so each has its own health.
    return hosting(platform).target(row.hosted, key, tenancy)
  }
  const headers = new Map<string, Secret>()
  if (token) {
    const bearer = row.credentialHeader === 'authorization'
    headers.set(row.credentialHeader, bearer ? new Secret(`Bearer ${token.reveal()}`) : token)
  }
  return { key, upstream, endpoint: new URL(row.endpoint), headers }
}

/** With the token of a connected account, which may be renewed while the upstream is spoken to. */
async function connectedTarget(platform: Platform, { orgId, userId }: Member, row: Row): Promise<UpstreamTarget> {
  const owner = row.credentialMode === 'SHARED' ? 'shared' : userId
  const of = { orgId, serviceId: row.id, owner }
  const { key, ...credential } = await connectedCredential(platform, of, row.connection)
  const upstream = `${row.id}/${row.version}`
  return { key: [row.id, row.version, owner, key].join('/'), upstream, endpoint: new URL(row.endpoint), ...credential }
}

async function passageOf(platform: Platform, actor: Member, row: Row, pins: PinBook): Promise<Passage> {
  const target = await targetOf(platform, actor, row)
  return {
    actor,
    orgId: actor.orgId,
    serviceId: row.id,
    serviceSlug: row.slug,
    trusted: row.trusted,
    toolAccess: new Map(row.policies.map(({ tool, access }) => [tool, access])),
    target,
    pins,
    safety: { blockSecrets: row.blockSecrets, hideChangedTools: row.hideChangedTools },
    ...(row.selection ? { selection: new Set(row.selection) } : {}),
    confirm: async () => {
      const now = await passageTo(platform, actor, row.slug)
      if (now.target.key !== target.key) throw notFound('service')
    },
  }
}

async function only(platform: Platform, actor: Member, slug: string, wanted: Wanted = {}): Promise<Passage> {
  // The same claims of the same credential see the same rows, whichever of its requests asks.
  const key = JSON.stringify([actor.kind, actor.credentialId, claimsOf(actor), slug, wanted.collectionId ?? null])
  const found = await ways(platform).ask(key, () => findOne(platform, actor, slug, wanted))
  if (!found) throw notFound('service')
  return passageOf(platform, actor, found.row, found.pins)
}

/** The caller's way to one service. The same `NOT_FOUND` for a service that is absent, disabled or another organisation's. */
export const passageTo = (platform: Platform, actor: Member, slug: string): Promise<Passage> =>
  only(platform, actor, slug)

/** The caller's ways to several services, in as many statements as one takes; none to those that are not theirs to reach. */
export async function passagesTo(
  platform: Platform,
  actor: Member,
  slugs: readonly string[],
): Promise<ReadonlyMap<string, Gathered>> {
  const found = await gather(platform, actor, { slugs })
  return new Map(found.map((each) => [each.slug, each]))
}

const gathered = async (platform: Platform, actor: Member, row: Row, pins: PinBook): Promise<Gathered> => {
  try {
    return { slug: row.slug, passage: await passageOf(platform, actor, row, pins) }
  } catch (error) {
    // A token that is missing here says nothing about the others.
    return { slug: row.slug, error }
  }
}

async function gather(platform: Platform, actor: Member, wanted: Wanted): Promise<Gathered[]> {
  const rows = (await find(platform, actor, wanted)).filter(({ id }) => reaches(actor, id))
  const books = await pinBooks(platform, actor, rows)
  return Promise.all(rows.map((row) => gathered(platform, actor, row, books.get(row.id) ?? new Map())))
}

/** The caller's services as one: all of the organisation, or those that a collection chose tools of. */
export async function gatheringAt(platform: Platform, actor: Member, collection?: string): Promise<Gathering> {
  const { orgId } = actor
  const chosen =
    collection === undefined
      ? undefined
      : await platform.database.read(actor, (tx) =>
          tx.collection.findFirst({
            where: { orgId, slug: collection },
            select: { id: true, name: true, description: true },
          }),
        )
  if (collection !== undefined && !chosen) throw notFound('service')
  const wanted: Wanted = chosen ? { collectionId: chosen.id } : {}
  return {
    actor,
    orgId,
    key: chosen ? `collection ${chosen.id}` : 'organization',
    title: chosen?.name ?? 'All services',
    description: chosen?.description ?? '',
    toolsOnly: chosen !== undefined,
    all: () => gather(platform, actor, wanted),
    one: (slug) => only(platform, actor, slug, wanted),
  }
}
