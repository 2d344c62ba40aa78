import { createHash } from 'node:crypto'
import { z } from 'zod'
import { analyseDocument } from '../../graphql/registry.ts'
import type { Actor } from '../../kernel/actor.ts'
import { AppError, badInput } from '../../kernel/errors.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { decodeNodeId } from '../../kernel/nodeId.ts'
import { operation } from '../../kernel/operation.ts'
import { scope } from '../../kernel/rule.ts'
import { actingMember } from '../services/operations.ts'

export const sha256Of = (document: string): string => createHash('sha256').update(document).digest('hex')

/** Registers a document for the organisation's API keys. Registering the same text again gives the same entry. */
export const registerPersistedOperation = operation({
  name: 'registerPersistedOperation',
  requires: scope('mcp:write'),
  input: z.strictObject({
    document: z.string().min(1).max(20_000).describe('One GraphQL operation with its fragments.'),
  }),
  prepare: ({ platform }, { document }) => Promise.resolve(analyseDocument(platform, document)),
  run: async ({ tx, actor, prepared, now }, { document }) => {
    if (prepared.kind === 'subscription')
      throw badInput([{ path: ['document'], message: 'expected a query or a mutation' }])
    const { orgId, userId } = actingMember(actor)
    const sha256 = sha256Of(document)
    const known = await tx.persistedOperation.findFirst({
      where: { orgId, sha256 },
      select: { id: true, sha256: true },
    })
    if (known) return known
    return tx.persistedOperation.create({
      data: {
        orgId,
        userId,
        sha256,
        name: prepared.name,
        kind: prepared.kind,
        document,
        requiredScopes: prepared.scopes,
        cost: prepared.cost,
        createdAt: now,
      },
      select: { id: true, sha256: true },
    })
  },
  audit: ({ id, sha256 }) => ({ action: 'persistedOperation.registered', target: id, detail: { sha256 } }),
})

/** What identifies a persisted operation in a request: its hash, its hash with the algorithm's name, or its id. */
const reference = z.union([
  z.string().regex(/^(sha256:)?[0-9a-f]{64}$/).transform((text) => ({ sha256: text.replace('sha256:', '') })), // prettier-ignore
  z.string().max(200).transform(decodeNodeId).pipe(z.object({ type: z.literal('PersistedOperation'), id: z.uuid() })).transform(({ id }) => ({ id })), // prettier-ignore
])

export type Persisted = { document: string; kind: string; requiredScopes: string[] }

/** The registered document, or `PERSISTED_QUERY_NOT_FOUND`: the same for unknown, malformed and another organisation's. */
export async function resolvePersisted(tx: Tx, actor: Actor, documentId: unknown): Promise<Persisted> {
  const parsed = reference.safeParse(documentId)
  const found = parsed.success
    ? await tx.persistedOperation.findFirst({
        where: { ...parsed.data, orgId: actingMember(actor).orgId },
        select: { document: true, kind: true, requiredScopes: true },
      })
    : null
  if (!found)
    throw new AppError(
      'PERSISTED_QUERY_NOT_FOUND',
      'No such persisted operation. Register it first: registerPersistedOperation.',
    )
  return found
}
