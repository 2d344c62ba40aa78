import { z } from 'zod'
import { system, type Actor } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError, badInput } from '../../kernel/errors.ts'
import { mailer } from '../../kernel/mail.ts'
import { nodeId } from '../../kernel/nodeId.ts'
import { operation, type Call } from '../../kernel/operation.ts'
import { isPublic } from '../../kernel/rule.ts'
import type { Secret } from '../../kernel/secret.ts'
import { tenantOf } from '../../kernel/source.ts'
import { addUser, displayName, emailAddress, givenPassword } from '../accounts/operations.ts'
import { assertStrong } from '../accounts/passwordStrength.ts'
import { givenToken, handOver, hashOfMailToken, newMailToken } from '../accounts/verificationTokens.ts'
import { administersMembers, administrator, assertMayGrant } from './members.ts'
import { role } from './policy.ts'

const lifeDays = 7
/** Invitations of one address to one organisation in an hour, however often they are revoked between. */
const perHour = 3
const open = (now: Date) => ({ acceptedAt: null, revokedAt: null, expiresAt: { gt: now } })

export const inviteMember = operation({
  name: 'inviteMember',
  requires: administersMembers,
  input: z.strictObject({ email: emailAddress, role }),
  run: async (work, { email, role: wanted }) => {
    const { tx, now, platform } = work
    const { orgId, userId } = administrator(work.actor)
    assertMayGrant(administrator(work.actor), wanted)
    if (await tx.membership.findFirst({ where: { orgId, user: { email } }, select: { id: true } }))
      throw new AppError('CONFLICT', 'This person is a member already.')
    const recent = { orgId, email, createdAt: { gt: new Date(now.getTime() - 3_600_000) } }
    if ((await tx.invitation.count({ where: recent })) >= perHour)
      throw new AppError('RATE_LIMITED', 'This address was invited several times just now. Try again later.', {
        retryAfterSeconds: 3600,
      })
    // One that has expired makes room for the next.
    await tx.invitation.updateMany({ where: { orgId, email, acceptedAt: null, revokedAt: null, expiresAt: { lte: now } }, data: { revokedAt: now } }) // prettier-ignore
    const token = newMailToken()
    const expiresAt = new Date(now.getTime() + lifeDays * 86_400_000)
    const invitation = await tx.invitation.create({
      data: { orgId, email, role: wanted, tokenHash: hashOfMailToken(token), invitedBy: userId, createdAt: now, expiresAt }, // prettier-ignore
      select: { id: true, organization: { select: { name: true } } },
    })
    const text = `You are invited to ${invitation.organization.name} on ${platform.publicUrl}.\n\nAccept within ${lifeDays} days:\n\n${handOver(platform, 'accept-invitation', token)}\n`
    await mailer(platform).send(work, { to: email, subject: 'You are invited', text })
    return { id: invitation.id }
  },
  audit: ({ id }, { role: wanted }) => ({ action: 'invitation.sent', target: id, detail: { role: wanted } }),
})

export const revokeInvitation = operation({
  name: 'revokeInvitation',
  requires: administersMembers,
  input: z.strictObject({ id: nodeId('Invitation') }),
  target: {
    noun: 'invitation',
    find: (tx, { id }, { now }) => tx.invitation.findFirst({ where: { id, ...open(now) }, select: { id: true } }),
  },
  run: ({ tx, now }, { id }) => tx.invitation.update({ where: { id }, data: { revokedAt: now }, select: { id: true } }),
  audit: ({ id }) => ({ action: 'invitation.revoked', target: id }),
})

const wrong = (): AppError =>
  new AppError(
    'INVALID_CREDENTIALS',
    'This invitation is not valid: it was accepted, revoked, has expired, or never was.',
  )

const byToken = async (tx: Tx, token: Secret, now: Date) => {
  const found = await tx.invitation.findFirst({
    where: { tokenHash: hashOfMailToken(token), ...open(now) },
    select: { id: true, email: true, orgId: true, role: true, invitedBy: true, organization: { select: { name: true, slug: true } } }, // prettier-ignore
  })
  if (!found) throw wrong()
  return found
}

/** The session of a caller whom this operation, which runs as the platform, must not take at their token's word. */
const stands = (tx: Tx, actor: Actor, userId: string, now: Date) =>
  actor.kind === 'user' && actor.userId === userId
    ? tx.session.findFirst({
        where: { id: actor.credentialId, userId, revokedAt: null, expiresAt: { gt: now } },
        select: { id: true },
      })
    : null

/** Who joins: the account of the invited address, proven by its session or password, or a new one. */
async function joiner(call: Call, input: { token: Secret; name?: string | undefined; password?: Secret | undefined }) {
  const { platform, actor, now } = call
  const { email, user, signedIn } = await platform.database.read(system(), async (tx) => {
    const { email } = await byToken(tx, input.token, now)
    const user = await tx.user.findFirst({ where: { email }, select: { id: true, passwordHash: true, disabledAt: true } }) // prettier-ignore
    return { email, user, signedIn: user && (await stands(tx, actor, user.id, now)) }
  })
  const { name, password } = input
  if (user?.disabledAt) throw wrong()
  if (user) {
    const proven =
      signedIn || (password && (await platform.hasher.matches(password, user.passwordHash, tenantOf(actor))))
    if (proven) return { userId: user.id, newUser: null }
    throw new AppError('INVALID_CREDENTIALS', 'There is an account with this address: sign in to it first, or send its password.') // prettier-ignore
  }
  if (!name || !password)
    throw badInput([{ path: [name ? 'password' : 'name'], message: 'expected, since an account is made' }])
  if (password.reveal().length < 12) throw badInput([{ path: ['password'], message: 'expected 12 characters or more' }])
  await assertStrong(password, [email, name])
  return { userId: null, newUser: { email, name, passwordHash: await platform.hasher.hash(password, tenantOf(actor)) } }
}

/** Opens no session: whoever joined signs in, with their second factor if they have one. */
export const acceptInvitation = operation({
  name: 'acceptInvitation',
  requires: isPublic,
  input: z.strictObject({
    token: givenToken.describe('From the mail; good once, for seven days.'),
    name: displayName.optional().describe('For a new account.'),
    password: givenPassword.optional().describe('For a new account; or that of an account you are not signed in to.'),
  }),
  runAs: 'system',
  prepare: joiner,
  run: async ({ tx, prepared, now }, { token }) => {
    const invitation = await byToken(tx, token, now)
    const used = await tx.invitation.updateMany({
      where: { id: invitation.id, ...open(now) },
      data: { acceptedAt: now },
    })
    if (used.count !== 1) throw wrong()
    const { orgId, role: given } = invitation
    // The right to invite may have ended since: an invitation lives as long as its sender administers.
    const sender = { orgId, userId: invitation.invitedBy, role: 'ORG_ADMIN', deactivatedAt: null, user: { disabledAt: null } } as const // prettier-ignore
    if (!(await tx.membership.findFirst({ where: sender, select: { id: true } }))) throw wrong()
    const userId = prepared.newUser ? (await addUser(tx, prepared.newUser)).id : prepared.userId
    await tx.user.updateMany({ where: { id: userId, emailVerifiedAt: null }, data: { emailVerifiedAt: now } })
    await tx.membership.create({ data: { orgId, userId, role: given, createdAt: now }, select: { id: true } })
    return { id: invitation.id, orgId, userId, role: given, ...invitation.organization }
  },
  audit: ({ id, orgId, userId, role: given }) => ({ action: 'invitation.accepted', target: id, orgId, userId, detail: { role: given } }), // prettier-ignore
})
