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

/** The same text is one entry, whoever registers it and however often; a client's own id may be added to it later. */
async function register(
  tx: Tx,
  { orgId, userId }: Member,
  document: string,
  { name, kind, scopes, cost, stepUp, records }: Analysis,
  client: string | undefined,
  now: Date,
): Promise<Registered> {
  const sha256 = sha256Of(document)
  const known = await tx.persistedOperation.findFirst({
    where: { sha256 },
    select: { ...registered, clientId: true },
  })
  if (known && (client === undefined || known.clientId === client)) return known
  if (known)
    return tx.persistedOperation.update({
      where: { id: known.id },
      data: { clientId: client ?? null },
      select: registered,
    })
  // Another text under a known name is the next version of it; earlier ones run on, for the clients that send them.
  const { _max } = name
    ? await tx.persistedOperation.aggregate({ where: { name }, _max: { version: true } })
    : { _max: null }
  return tx.persistedOperation.create({
    data: {
      version: (_max?.version ?? 0) + 1,
      stepUp,
      records,
      orgId,
      userId,
      sha256,
      name,
      kind,
      document,
      requiredScopes: scopes,
      cost,
      clientId: client ?? null,
      createdAt: now,
    },
    select: registered,
  })
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
  run: ({ tx, actor, prepared, now }, { document, clientId }) =>
    register(tx, actingMember(actor), document, prepared, clientId, now),
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
      operations.map(({ document }, i) => analyseForKeys(platform, document, ['operations', i, 'document'])),
    ),
  run: async ({ tx, actor, prepared, now }, { operations }) => {
    const all: Registered[] = []
    for (const [i, { document, clientId }] of operations.entries()) {
      const analysis = prepared[i]
      if (analysis) all.push(await register(tx, actingMember(actor), document, analysis, clientId, now))
    }
    return { operations: all }
  },
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
