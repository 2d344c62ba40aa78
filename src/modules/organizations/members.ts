import { z } from 'zod'
import { isMember, type Actor, type Member } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError, notFound } from '../../kernel/errors.ts'
import { nodeId } from '../../kernel/nodeId.ts'
import { operation } from '../../kernel/operation.ts'
import type { Role } from '../../kernel/permissions.ts'
import { allOf, scope, stepUp } from '../../kernel/rule.ts'
import { mayGrant, role } from './policy.ts'

/** What it takes to say who belongs to an organisation and as what. */
export const administersMembers = allOf(scope('org:admin'), stepUp)

export function administrator(actor: Actor): Member {
  if (isMember(actor)) return actor
  throw notFound('member')
}

export function assertMayGrant(actor: Member, wanted: Role): void {
  if (!mayGrant(actor, wanted))
    throw new AppError('FORBIDDEN', 'You cannot grant a role above your own.', { extensions: { requires: { role: wanted } } }) // prettier-ignore
}

/** Changes to who administers an organisation take turns, so that each sees what the one before left. */
export const lockAdministrators = (tx: Tx, orgId: string): Promise<number> =>
  tx.$executeRaw`SELECT pg_advisory_xact_lock(hashtextextended(${orgId}, 4101968214))`

/** Refuses what would leave the organisation without an active administrator. Holds the lock until the commit. */
export async function keepAnAdministrator(tx: Tx, orgId: string, without: string): Promise<void> {
  await lockAdministrators(tx, orgId)
  const others = await tx.membership.count({
    where: { orgId, role: 'ORG_ADMIN', deactivatedAt: null, userId: { not: without }, user: { disabledAt: null } },
  })
  if (others === 0)
    throw new AppError('CONFLICT', 'An organisation keeps at least one active administrator. Make another one first.')
}

const target = {
  noun: 'member',
  find: (tx: Tx, { id }: { id: string }) =>
    tx.membership.findFirst({
      where: { id },
      select: { id: true, orgId: true, userId: true, role: true, deactivatedAt: true },
    }),
}
const id = nodeId('Membership').describe('Of the membership.')
type Row = { id: string; orgId: string; userId: string; role: Role; deactivatedAt: Date | null } | null

function rowOf(row: Row): NonNullable<Row> {
  if (!row) throw notFound('member')
  return row
}

/** Credentials of another role are refused from the next request on; a new sign-in or refresh gives one of the new role. */
export const changeRole = operation({
  name: 'changeRole',
  requires: administersMembers,
  input: z.strictObject({ id, role }),
  target,
  run: async ({ tx, actor, row }, { role: wanted }) => {
    const { id, orgId, userId, role: before } = rowOf(row)
    assertMayGrant(administrator(actor), wanted)
    if (wanted !== 'ORG_ADMIN') await keepAnAdministrator(tx, orgId, userId)
    await tx.membership.update({ where: { id }, data: { role: wanted }, select: { id: true } })
    return { id, before }
  },
  audit: ({ id, before }, { role: after }) => ({ action: 'member.roleChanged', target: id, detail: { before, after } }),
})

/** Sign-in is refused and sessions end; API keys rest, and work again if the member comes back. Data is kept. */
export const deactivateMember = operation({
  name: 'deactivateMember',
  requires: administersMembers,
  input: z.strictObject({ id }),
  target,
  run: async ({ tx, row, now }) => {
    const { id, orgId, userId } = rowOf(row)
    await keepAnAdministrator(tx, orgId, userId)
    await tx.membership.update({ where: { id }, data: { deactivatedAt: now }, select: { id: true } })
    await tx.$executeRaw`SELECT app.end_member_credentials(${userId}::uuid, false, ${now})`
    return { id }
  },
  audit: ({ id }) => ({ action: 'member.deactivated', target: id }),
})

export const reactivateMember = operation({
  name: 'reactivateMember',
  requires: administersMembers,
  input: z.strictObject({ id }),
  target,
  run: async ({ tx, actor, row }) => {
    const { id, role } = rowOf(row)
    assertMayGrant(administrator(actor), role)
    return tx.membership.update({ where: { id }, data: { deactivatedAt: null }, select: { id: true } })
  },
  audit: ({ id }) => ({ action: 'member.reactivated', target: id }),
})

/** Another active member, to whom things can be handed over: the one that is named, else the longest-standing administrator. */
async function successorOf(tx: Tx, id: string | undefined, leaving: string): Promise<string> {
  const found = await tx.membership.findFirst({
    where: {
      ...(id ? { id } : { role: 'ORG_ADMIN' }),
      deactivatedAt: null,
      userId: { not: leaving },
      user: { disabledAt: null },
    },
    orderBy: { createdAt: 'asc' },
    select: { userId: true },
  })
  if (!found) throw notFound('member')
  return found.userId
}

/**
 * Ends a membership for good: sessions and API keys of it are revoked, tokens that the member kept for services are
 * deleted. What they registered and whom they invited goes to a successor. Services belong to the organisation and stay;
 * so does the account.
 */
export const removeMember = operation({
  name: 'removeMember',
  requires: administersMembers,
  input: z.strictObject({
    id,
    successorId: nodeId('Membership')
      .optional()
      .describe('Membership that takes over their registered operations and open invitations. Default: your own.'),
  }),
  target,
  run: async ({ tx, actor, row, now }, { successorId }) => {
    const { id, orgId, userId } = rowOf(row)
    await keepAnAdministrator(tx, orgId, userId)
    const own = administrator(actor).userId
    const successor = successorId || own === userId ? await successorOf(tx, successorId, userId) : own
    await tx.$executeRaw`SELECT app.hand_over(${userId}::uuid, ${successor}::uuid)`
    await tx.$executeRaw`SELECT app.end_member_credentials(${userId}::uuid, true, ${now})`
    await tx.membership.delete({ where: { id }, select: { id: true } })
    return { id, userId, successor }
  },
  audit: ({ id, userId, successor }) => ({ action: 'member.removed', target: id, detail: { userId, successor } }),
})
