import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { z } from 'zod'
import type { Analysis } from '../../graphql/analysis.ts'
import { analyseDocument } from '../../graphql/registry.ts'
import { isMember, type Actor, type Member } from '../../kernel/actor.ts'
import { AppError, badInput } from '../../kernel/errors.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { decodeNodeId } from '../../kernel/nodeId.ts'
import { operation } from '../../kernel/operation.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { scope } from '../../kernel/rule.ts'
import { actingMember } from '../services/operations.ts'
import { builtIn } from './builtIn.ts'

export const sha256Of = (document: string): string => createHash('sha256').update(document).digest('hex')

export const documentText = z.string().min(1).max(20_000)
const clientId = z.string().regex(/^[\w:.-]{1,128}$/, 'expected up to 128 of letters, digits and _ : . -')

const registered = { id: true, sha256: true } as const
type Registered = { id: string; sha256: string }

type Submission = { document: string; clientId?: string | undefined; analysis: Analysis }
type Known = Registered & { clientId: string | null }

/** Another text under a known name is the next version of it; earlier ones run on, for the clients that send them. */
async function latestVersions(tx: Tx, submissions: readonly Submission[]): Promise<Map<string, number>> {
  const names = [...new Set(submissions.flatMap(({ analysis: { name } }) => (name ? [name] : [])))]
  if (names.length === 0) return new Map()
  const rows = await tx.persistedOperation.groupBy({
    by: ['name'],
    where: { name: { in: names } },
    _max: { version: true },
  })
  return new Map(rows.map(({ name, _max }) => [name ?? '', _max.version ?? 0]))
}

async function add(
  tx: Tx,
  { orgId, userId }: Member,
  submissions: readonly (Submission & { sha256: string })[],
  now: Date,
): Promise<Registered[]> {
  if (submissions.length === 0) return []
  const versions = await latestVersions(tx, submissions)
  const data = submissions.map(({ document, sha256, clientId: client, analysis }) => {
    const { name, kind, scopes: requiredScopes, cost, stepUp, records } = analysis
    const version = (versions.get(name ?? '') ?? 0) + 1
    if (name) versions.set(name, version)
    const own = { orgId, userId, sha256, document, clientId: client ?? null, createdAt: now }
    return { ...own, name, version, kind, requiredScopes, cost, stepUp, records }
  })
  return tx.persistedOperation.createManyAndReturn({ data, select: registered })
}

/** Gives entries other client ids, which may be those that others of them had. */
async function rename(tx: Tx, { orgId }: Member, entries: readonly { id: string; client: string }[]): Promise<void> {
  const ids = entries.map(({ id }) => id)
  await tx.persistedOperation.updateMany({ where: { id: { in: ids } }, data: { clientId: null } })
  await tx.$executeRaw`
    UPDATE persisted_operations p SET client_id = n.client
    FROM unnest(${ids}::uuid[], ${entries.map(({ client }) => client)}::text[]) AS n (id, client)
    WHERE p.id = n.id AND p.org_id = ${orgId}::uuid`
}

/**
 * The same text is one entry, whoever registers it and however often; a client's own id may be added to it later. A
 * manifest takes as many statements as a single document.
 */
async function register(
  tx: Tx,
  actor: Member,
  submissions: readonly Submission[],
  now: Date,
): Promise<[Registered, ...Registered[]]> {
  const wanted = new Map<string, Submission & { sha256: string }>()
  const hashes = submissions.map((submission) => {
    const sha256 = sha256Of(submission.document)
    const clientId = submission.clientId ?? wanted.get(sha256)?.clientId
    wanted.set(sha256, { ...submission, sha256, clientId })
    return sha256
  })
  const known = new Map<string, Known>()
  const rows = await tx.persistedOperation.findMany({
    where: { sha256: { in: [...wanted.keys()] } },
    select: { ...registered, clientId: true },
  })
  for (const row of rows) known.set(row.sha256, row)
  const renamed = [...wanted.values()].flatMap(({ sha256, clientId: client }) => {
    const row = known.get(sha256)
    return row && client !== undefined && row.clientId !== client ? [{ id: row.id, client }] : []
  })
  if (renamed.length) await rename(tx, actor, renamed)
  const added = await add(tx, actor, [...wanted.values()].filter(({ sha256 }) => !known.has(sha256)), now) // prettier-ignore
  const all = new Map<string, Registered>([...rows, ...added].map((row) => [row.sha256, row]))
  return hashes.flatMap((sha256) => all.get(sha256) ?? []) as [Registered, ...Registered[]]
}

function analyseForKeys(
  platform: Parameters<typeof analyseDocument>[0],
  document: string,
  path: (string | number)[],
): Analysis {
  const analysis = analyseDocument(platform, document, path)
  if (analysis.kind === 'subscription') throw badInput([{ path, message: 'expected a query or a mutation' }])
  return analysis
}

/** Registers a document for the organisation's API keys. Registering the same text again gives the same entry. */
export const registerPersistedOperation = operation({
  name: 'registerPersistedOperation',
  requires: scope('mcp:write'),
  input: z.strictObject({
    document: documentText.describe('One GraphQL operation with its fragments.'),
    clientId: clientId.optional().describe('The id by which a client’s manifest names it.'),
  }),
  prepare: ({ platform }, { document }) => Promise.resolve(analyseForKeys(platform, document, ['document'])),
  run: async ({ tx, actor, prepared: analysis, now }, { document, clientId }) => {
    const [only] = await register(tx, actingMember(actor), [{ document, clientId, analysis }], now)
    return only
  },
  audit: ({ id, sha256 }) => ({ action: 'persistedOperation.registered', target: id, detail: { sha256 } }),
})

/** A whole manifest, all or nothing: what a build pushes. */
export const registerPersistedOperations = operation({
  name: 'registerPersistedOperations',
  requires: scope('mcp:write'),
  input: z.strictObject({
    operations: z
      .array(z.strictObject({ document: documentText, clientId: clientId.optional() }))
      .min(1)
      .max(500),
  }),
  prepare: ({ platform }, { operations }) =>
    Promise.resolve(
      operations.map((given, i) => ({
        ...given,
        analysis: analyseForKeys(platform, given.document, ['operations', i, 'document']),
      })),
    ),
  run: async ({ tx, actor, prepared, now }, _input) => ({
    operations: await register(tx, actingMember(actor), prepared, now),
  }),
  audit: ({ operations }) => ({
    action: 'persistedOperation.manifestRegistered',
    detail: { count: operations.length },
  }),
})

export const deletePersistedOperation = operation({
  name: 'deletePersistedOperation',
  requires: scope('mcp:write'),
  input: z.strictObject({ id: z.string().max(200) }),
  target: {
    noun: 'persisted operation',
    find: (tx, { id }) =>
      tx.persistedOperation.findFirst({
        where: { id: decodeNodeId(id)?.id ?? '00000000-0000-0000-0000-000000000000' },
        select: registered,
      }),
  },
  run: ({ tx, row }) => tx.persistedOperation.delete({ where: { id: row?.id ?? '' }, select: registered }),
  audit: ({ id, sha256 }) => ({ action: 'persistedOperation.deleted', target: id, detail: { sha256 } }),
})

const sha256Reference = z.string().regex(/^(sha256:)?[0-9a-f]{64}$/).transform((text) => text.replace('sha256:', '')) // prettier-ignore

const versioned = z.string().regex(/^[A-Za-z_]\w{0,127}@(\d{1,9}|latest)$/)

type Reference = { sha256: string } | { id: string } | { clientId: string } | { name: string; version?: number }

/**
 * What identifies a persisted operation in a request: its hash (with the algorithm's name or without), its id, a client's
 * own id, or its name with a version (`Name@3`, `Name@latest`).
 */
function reference(documentId: unknown): Reference | null {
  const sha256 = sha256Reference.safeParse(documentId)
  if (sha256.success) return { sha256: sha256.data }
  const byName = versioned.safeParse(documentId)
  if (byName.success) {
    const [name = '', version] = byName.data.split('@')
    return version === 'latest' ? { name } : { name, version: Number(version) }
  }
  const named = clientId.safeParse(documentId)
  if (!named.success) return null
  const node = decodeNodeId(named.data)
  return node?.type === 'PersistedOperation' ? { id: node.id } : { clientId: named.data }
}

export type Persisted = {
  id?: string
  sha256?: string
  document: string
  kind: string
  requiredScopes: readonly string[]
}

// What a hash named a moment ago; other references can come to name another document. It is used only where the database
// confirms, with the query itself, that the operation is still registered (`app.identify_for`).
const remembered = resource(() => new LRUCache<string, Persisted & { id: string }>({ max: 2000, ttl: 60_000 }))
const memoryKey = ({ orgId }: Pick<Member, 'orgId'>, documentId: string): string => `${orgId} ${documentId}`

/** The operation that a hash named a moment ago; undefined where this instance does not know, or the key may not run it. */
export function recallPersisted(platform: Platform, actor: Member, documentId: string) {
  const found = remembered(platform).get(memoryKey(actor, documentId))
  const allowed = actor.limits?.operationIds
  return found && (!allowed || allowed.includes(found.id)) ? found : undefined
}

export const forgetPersisted = (platform: Platform, actor: Member, documentId: string): void =>
  void remembered(platform).delete(memoryKey(actor, documentId))

export function rememberPersisted(platform: Platform, actor: Actor, documentId: string, found: Persisted): void {
  const { id, sha256 } = found
  if (id && isMember(actor) && documentId.replace(/^sha256:/, '') === sha256)
    remembered(platform).set(memoryKey(actor, documentId), { ...found, id })
}

/** The registered document, or `PERSISTED_QUERY_NOT_FOUND`: the same for unknown, malformed and another organisation's. */
export async function resolvePersisted(tx: Tx, actor: Actor, documentId: unknown): Promise<Persisted> {
  const by = reference(documentId)
  const given = by && 'sha256' in by ? builtIn.get(by.sha256) : undefined
  if (given && !(isMember(actor) && actor.limits?.operationIds)) return given
  const select = { id: true, sha256: true, document: true, kind: true, requiredScopes: true } as const
  // A SHA-256 may also be the id that an Apollo manifest gave to a document it had formatted differently.
  const where = by && 'sha256' in by ? { OR: [by, { clientId: by.sha256 }] } : by
  const found = where ? await tx.persistedOperation.findFirst({ where, orderBy: { version: 'desc' }, select }) : null
  if (found) return found
  throw new AppError(
    'PERSISTED_QUERY_NOT_FOUND',
    'No such persisted operation. Register it first: registerPersistedOperation.',
  )
}
