import { z } from 'zod'
import { isMember } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError, notFound } from '../../kernel/errors.ts'
import { nodeId } from '../../kernel/nodeId.ts'
import { operation, type Call } from '../../kernel/operation.ts'
import { effectiveScopes, scopes } from '../../kernel/permissions.ts'
import { allOf, scope } from '../../kernel/rule.ts'
import { tenantOf } from '../../kernel/source.ts'
import { mintApiKey } from './format.ts'
import { keyLimits, limitsOf } from './limits.ts'
import { owner, ownerOrOrgAdmin } from './policy.ts'

/** The longest that a replaced secret may live on. */
const longestOverlapSeconds = 7 * 86_400

const mint = async ({ platform, actor }: Call) => {
  const minted = mintApiKey()
  return { ...minted, secretHash: await platform.hasher.hash(minted.secret, tenantOf(actor)) }
}

/** A key never holds more than its maker does at this moment. */
export const createApiKey = operation({
  name: 'createApiKey',
  requires: scope('user:token'),
  input: z.strictObject({
    name: z.string().trim().min(1).max(100),
    scopes: z.array(z.enum(scopes)).min(1).max(scopes.length).describe('e.g. `["mcp:read"]`; none that you lack.'),
    ...keyLimits,
  }),
  prepare: mint,
  run: async ({ tx, actor, prepared, now }, { name, scopes: wanted, ...given }) => {
    if (!isMember(actor)) throw notFound('account')
    const lacking = wanted.filter((each) => !actor.scopes.includes(each))
    if (lacking.length)
      throw new AppError('FORBIDDEN', 'A key cannot hold scopes that you lack.', {
        extensions: { requires: { scopes: lacking } },
      })
    const limits = await limitsOf(tx, actor, given, wanted, now)
    const { publicId, secretHash, hint, text } = prepared
    const { orgId, userId, kind, credentialId } = actor
    const madeById = kind === 'apiKey' ? credentialId : null
    const facts = { publicId, secretHash, hint, orgId, userId, name, scopes: [...new Set(wanted)], ...limits }
    const apiKey = await tx.apiKey.create({ data: { ...facts, madeById, createdAt: now }, select: { id: true } })
    return { apiKey, secret: text, limits }
  },
  audit: ({ apiKey, limits }, { name, scopes: given }) => {
    const { allowedCidrs, allowedServiceIds, allowedOperationIds, requestsPerMinute } = limits
    const detail = { name, scopes: given, allowedCidrs, allowedServiceIds, allowedOperationIds, requestsPerMinute }
    return { action: 'apiKey.created', target: apiKey.id, detail }
  },
})

const inherited = {
  id: true,
  orgId: true,
  userId: true,
  name: true,
  scopes: true,
  expiresAt: true,
  revokedAt: true,
  allowedCidrs: true,
  allowedServiceIds: true,
  allowedOperationIds: true,
  requestsPerMinute: true,
  replacedBy: { select: { id: true } },
} as const

/** A new secret with the old one's rights and limits; the old one ends when the overlap does, or earlier by its own expiry. */
export const rotateApiKey = operation({
  name: 'rotateApiKey',
  requires: allOf(scope('user:token'), owner),
  input: z.strictObject({
    id: nodeId('ApiKey'),
    overlapSeconds: z
      .number()
      .int()
      .min(0)
      .max(longestOverlapSeconds)
      .describe('How long the old secret works beside the new one; 0 ends it now, seven days at the most.'),
  }),
  prepare: mint,
  target: { noun: 'API key', find: (tx, { id }) => tx.apiKey.findFirst({ where: { id }, select: inherited }) },
  run: async ({ tx, actor, row, prepared, now }, { overlapSeconds }) => {
    if (!isMember(actor) || !row) throw notFound('API key')
    const { id, replacedBy, revokedAt, ...rest } = row
    // With another's secret a key would have another's rights.
    if (actor.kind === 'apiKey' && actor.credentialId !== id)
      throw new AppError('FORBIDDEN', 'A key can rotate itself alone.')
    if (revokedAt || replacedBy || (rest.expiresAt && rest.expiresAt <= now))
      throw new AppError('CONFLICT', 'This key has ended or was replaced already.')
    const { publicId, secretHash, hint, text } = prepared
    const madeById = actor.kind === 'apiKey' ? actor.credentialId : null
    // What a role that was lowered since cannot hold does not come along.
    const scopes = effectiveScopes(actor.role, rest.scopes)
    const facts = { ...rest, scopes, publicId, secretHash, hint, madeById, replacesId: id, createdAt: now }
    const apiKey = await tx.apiKey.create({ data: facts, select: { id: true } })
    const ends = new Date(now.getTime() + overlapSeconds * 1000)
    if (!rest.expiresAt || ends < rest.expiresAt)
      await tx.apiKey.update({ where: { id }, data: { expiresAt: ends }, select: { id: true } })
    return { apiKey, secret: text }
  },
  audit: ({ apiKey }, { id, overlapSeconds }) => ({
    action: 'apiKey.rotated',
    target: id,
    detail: { successor: apiKey.id, overlapSeconds },
  }),
})

/**
 * Ends a key, the ones it replaced and still overlap with it, and all that any of these made: whoever held a stolen key
 * keeps nothing. The key that a person put in its place stays. Answers the ids that ended now.
 */
export async function endKeys(tx: Tx, id: string, now: Date, reason: string | null): Promise<string[]> {
  const ended = await tx.$queryRaw<{ id: string }[]>`
    WITH RECURSIVE doomed AS (
      SELECT id, replaces_id FROM api_keys WHERE id = ${id}::uuid
      UNION
      SELECT k.id, k.replaces_id FROM api_keys k JOIN doomed d ON k.id = d.replaces_id OR k.made_by_id = d.id
    )
    UPDATE api_keys SET revoked_at = ${now}::timestamptz, revoked_reason = ${reason}
    WHERE id IN (SELECT id FROM doomed) AND revoked_at IS NULL RETURNING id::text`
  return ended.map((row) => row.id)
}

export const revokeApiKey = operation({
  name: 'revokeApiKey',
  requires: allOf(scope('user:token'), ownerOrOrgAdmin),
  input: z.strictObject({
    id: nodeId('ApiKey'),
    reason: z.string().trim().min(1).max(200).optional().describe('Shown with the key and kept in the trail.'),
  }),
  target: {
    noun: 'API key',
    find: (tx, { id }) => tx.apiKey.findFirst({ where: { id }, select: { id: true, userId: true } }),
  },
  run: async ({ tx, now }, { id, reason }) => ({ id, ended: await endKeys(tx, id, now, reason ?? null) }),
  audit: ({ id, ended }, { reason }) => ({
    action: 'apiKey.revoked',
    target: id,
    detail: { reason: reason ?? null, ended },
  }),
})
