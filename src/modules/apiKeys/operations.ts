import { z } from 'zod'
import { isMember } from '../../kernel/actor.ts'
import { AppError, notFound } from '../../kernel/errors.ts'
import { nodeId } from '../../kernel/nodeId.ts'
import { operation } from '../../kernel/operation.ts'
import { scopes } from '../../kernel/permissions.ts'
import { allOf, scope } from '../../kernel/rule.ts'
import { mintApiKey } from './format.ts'
import { ownerOrOrgAdmin } from './policy.ts'

/** A key never holds more than its maker does at this moment. */
export const createApiKey = operation({
  name: 'createApiKey',
  requires: scope('user:token'),
  input: z.strictObject({
    name: z.string().trim().min(1).max(100),
    scopes: z.array(z.enum(scopes)).min(1).max(scopes.length).describe('e.g. `["mcp:read"]`; none that you lack.'),
    expiresAt: z.date().optional().describe('Default: it does not expire.'),
  }),
  prepare: async ({ platform }) => {
    const minted = mintApiKey()
    return { ...minted, secretHash: await platform.hasher.hash(minted.secret) }
  },
  run: async ({ tx, actor, prepared, now }, { name, scopes: wanted, expiresAt }) => {
    if (!isMember(actor)) throw notFound('account')
    const lacking = wanted.filter((each) => !actor.scopes.includes(each))
    if (lacking.length)
      throw new AppError('FORBIDDEN', 'A key cannot hold scopes that you lack.', {
        extensions: { requires: { scopes: lacking } },
      })
    if (expiresAt && expiresAt <= now) throw new AppError('BAD_USER_INPUT', 'expiresAt: expected a time in the future', {
      extensions: { issues: [{ path: ['expiresAt'], message: 'expected a time in the future' }] },
    }) // prettier-ignore
    const { publicId, secretHash, hint, text } = prepared
    const { orgId, userId } = actor
    const apiKey = await tx.apiKey.create({
      data: {
        publicId,
        orgId,
        userId,
        name,
        secretHash,
        hint,
        scopes: [...new Set(wanted)],
        expiresAt: expiresAt ?? null,
        createdAt: now,
      },
      select: { id: true },
    })
    return { apiKey, secret: text }
  },
  audit: ({ apiKey }, { name, scopes: given }) => ({
    action: 'apiKey.created',
    target: apiKey.id,
    detail: { name, scopes: given },
  }),
})

export const revokeApiKey = operation({
  name: 'revokeApiKey',
  requires: allOf(scope('user:token'), ownerOrOrgAdmin),
  input: z.strictObject({ id: nodeId('ApiKey') }),
  target: {
    noun: 'API key',
    find: (tx, { id }) => tx.apiKey.findFirst({ where: { id }, select: { id: true, userId: true, revokedAt: true } }),
  },
  run: async ({ tx, row, now }) =>
    row?.revokedAt
      ? { id: row.id }
      : tx.apiKey.update({ where: { id: row?.id ?? '' }, data: { revokedAt: now }, select: { id: true } }),
  audit: ({ id }) => ({ action: 'apiKey.revoked', target: id }),
})
