import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { isMember } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError, badInput, notFound } from '../../kernel/errors.ts'
import { operation } from '../../kernel/operation.ts'
import { allOf, isPublic, scope, stepUp } from '../../kernel/rule.ts'
import { tenantOf } from '../../kernel/source.ts'
import { addUser, displayName, emailAddress, newPassword } from '../accounts/operations.ts'
import { assertStrong } from '../accounts/passwordStrength.ts'
import { mailAccountExists, mailVerification } from '../accounts/verification.ts'
import { openSession, type OpenedSession } from '../sessions/operations.ts'
import { guardSignUp } from './signUpGuard.ts'

export const organizationName = z.string().trim().min(1).max(100)

/** A name as it can stand in an address: lower case, digits and single dashes, at most 40 characters. */
export function slugOf(name: string): string {
  const plain = name.normalize('NFKD').replace(/\p{Mark}/gu, '').toLowerCase().replace(/[^a-z0-9]+/g, '-') // prettier-ignore
  return plain.slice(0, 40).replace(/^-+|-+$/g, '') || 'organization'
}

/** What signing up gives: a session, or, where addresses are verified, nothing but mail, whether or not it was taken. */
export type SignUpOutcome = { session: OpenedSession | null; founded: { userId: string; orgId: string } | null }

type Founding = { email: string; name: string; organizationName: string; passwordHash: string }

async function found(tx: Tx, { email, name, organizationName, passwordHash }: Founding) {
  const base = slugOf(organizationName)
  const taken = await tx.organization.findFirst({ where: { slug: base }, select: { id: true } })
  const slug = taken ? `${base}-${randomBytes(3).toString('hex')}` : base
  const user = await addUser(tx, { email, name, passwordHash })
  const organization = await tx.organization.create({ data: { slug, name: organizationName }, select: { id: true } })
  const membership = { orgId: organization.id, userId: user.id, role: 'ORG_ADMIN' as const }
  await tx.membership.create({ data: membership, select: { id: true } })
  return membership
}

/** A user who founds an organisation is its first administrator. */
export const signUp = operation({
  name: 'signUp',
  requires: isPublic,
  input: z.strictObject({ email: emailAddress, password: newPassword, name: displayName, organizationName }),
  runAs: 'system',
  prepare: async (call, { password, email, name, organizationName }) => {
    await guardSignUp(call)
    await assertStrong(password, [email, name, organizationName])
    return call.platform.hasher.hash(password, tenantOf(call.actor))
  },
  run: async ({ prepared: passwordHash, ...work }, input): Promise<SignUpOutcome> => {
    const { tx, platform, actor } = work
    const { email } = input
    // The operator's own command line vouches for the address.
    const verifies = platform.config.emailVerification && actor.kind !== 'system'
    const known = await tx.user.findFirst({ where: { email }, select: { id: true } })
    if (known && !verifies)
      throw new AppError('CONFLICT', 'An account with this e-mail address exists already. Sign in instead.')
    if (known) {
      await mailAccountExists(work, { ...known, email })
      return { session: null, founded: null }
    }
    const founded = await found(tx, { ...input, passwordHash })
    if (!verifies) return { session: await openSession(tx, work, founded), founded }
    await mailVerification(work, { id: founded.userId, email })
    return { session: null, founded }
  },
  audit: ({ founded }) =>
    founded ? { action: 'organization.founded', target: founded.orgId, ...founded } : { action: 'signUp.repeated' },
})

export const updateOrganization = operation({
  name: 'updateOrganization',
  requires: allOf(scope('org:write'), stepUp),
  input: z.strictObject({
    name: organizationName.optional(),
    requireMfa: z
      .boolean()
      .optional()
      .describe(
        'Every member needs a second factor; who has none can do nothing but enrol one, from the next request on.',
      ),
  }),
  run: async ({ tx, actor }, { name, requireMfa }) => {
    if (!isMember(actor)) throw notFound('organisation')
    if (name === undefined && requireMfa === undefined)
      throw badInput([{ path: [], message: 'expected at least one value to change' }])
    return tx.organization.update({
      where: { id: actor.orgId },
      data: { ...(name === undefined ? {} : { name }), ...(requireMfa === undefined ? {} : { requireMfa }) },
      select: { id: true },
    })
  },
  audit: ({ id }, { name, requireMfa }) => ({
    action: 'organization.updated',
    target: id,
    detail: { ...(name === undefined ? {} : { name }), ...(requireMfa === undefined ? {} : { requireMfa }) },
  }),
})
