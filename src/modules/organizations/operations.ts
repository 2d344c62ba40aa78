import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { isMember } from '../../kernel/actor.ts'
import { AppError, notFound } from '../../kernel/errors.ts'
import { operation } from '../../kernel/operation.ts'
import { isPublic, scope } from '../../kernel/rule.ts'
import { addUser, displayName, emailAddress, newPassword } from '../accounts/operations.ts'
import { openSession } from '../sessions/operations.ts'

export const organizationName = z.string().trim().min(1).max(100)

/** A name as it can stand in an address: lower case, digits and single dashes, at most 40 characters. */
export function slugOf(name: string): string {
  const plain = name.normalize('NFKD').replace(/\p{Mark}/gu, '').toLowerCase().replace(/[^a-z0-9]+/g, '-') // prettier-ignore
  return plain.slice(0, 40).replace(/^-+|-+$/g, '') || 'organization'
}

/** A user who founds an organisation is its first administrator. */
export const signUp = operation({
  name: 'signUp',
  requires: isPublic,
  input: z.strictObject({ email: emailAddress, password: newPassword, name: displayName, organizationName }),
  runAs: 'system',
  prepare: async ({ platform }, { password }) => platform.hasher.hash(password),
  run: async ({ tx, prepared: passwordHash, ...call }, { email, name, organizationName }) => {
    if (await tx.user.findFirst({ where: { email }, select: { id: true } }))
      throw new AppError('CONFLICT', 'An account with this e-mail address exists already. Sign in instead.')
    const base = slugOf(organizationName)
    const taken = await tx.organization.findFirst({ where: { slug: base }, select: { id: true } })
    const slug = taken ? `${base}-${randomBytes(3).toString('hex')}` : base
    const user = await addUser(tx, { email, name, passwordHash })
    const organization = await tx.organization.create({ data: { slug, name: organizationName }, select: { id: true } })
    const membership = { orgId: organization.id, userId: user.id, role: 'ORG_ADMIN' as const }
    await tx.membership.create({ data: membership, select: { id: true } })
    return openSession(tx, call, membership)
  },
  audit: ({ userId, orgId }) => ({ action: 'organization.founded', target: orgId, userId, orgId }),
})

export const updateOrganization = operation({
  name: 'updateOrganization',
  requires: scope('org:write'),
  input: z.strictObject({ name: organizationName }),
  run: async ({ tx, actor }, { name }) => {
    if (!isMember(actor)) throw notFound('organisation')
    return tx.organization.update({ where: { id: actor.orgId }, data: { name }, select: { id: true } })
  },
  audit: ({ id }, { name }) => ({ action: 'organization.updated', target: id, detail: { name } }),
})
