import { z } from 'zod'
import { member, type Member } from '../../kernel/actor.ts'
import { system } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError } from '../../kernel/errors.ts'
import { operation, type Call } from '../../kernel/operation.ts'
import { scopes as allScopes, type Role } from '../../kernel/permissions.ts'
import { authenticated, isPublic } from '../../kernel/rule.ts'
import { emailAddress, givenPassword } from '../accounts/operations.ts'
import { issueAccessToken } from './tokens.ts'

const sessionDays = 30

/** What a sign-in gives: the token, and the member that the rest of the request acts as. */
export type SignedIn = { accessToken: string; expiresAt: Date; actor: Member }

export type OpenedSession = {
  id: string
  userId: string
  orgId: string
  role: Role
  expiresAt: Date
  mfaAt: Date | null
}

/** Opens a session in the transaction of a sign-in. */
export async function openSession(
  tx: Tx,
  { actor, now }: Call,
  who: { userId: string; orgId: string; role: Role },
): Promise<OpenedSession> {
  const { ip, userAgent } = actor.origin
  const expiresAt = new Date(now.getTime() + sessionDays * 86_400_000)
  const session = await tx.session.create({
    data: { userId: who.userId, orgId: who.orgId, createdAt: now, expiresAt, ip, userAgent },
    select: { id: true, userId: true, orgId: true, expiresAt: true, mfaAt: true },
  })
  return { ...session, role: who.role }
}

/** The access token of a session that was just opened, after its transaction committed. */
export async function signedIn(
  { platform, actor, now }: Omit<Call, 'signal'>,
  session: OpenedSession,
): Promise<SignedIn> {
  const token = await issueAccessToken(platform, session, { role: session.role, scopes: allScopes }, now)
  const { id, userId, orgId, role, mfaAt } = session
  const facts = {
    kind: 'user',
    userId,
    orgId,
    role,
    credentialId: id,
    mfaAt,
    origin: actor.origin,
    given: allScopes,
  } as const
  return { ...token, actor: member(facts, now) }
}

const invalid = (): AppError => new AppError('INVALID_CREDENTIALS', 'E-mail or password is wrong.')

/** Checks the password before any transaction opens, with the same work whether or not the account exists. */
async function checkPassword(
  { platform, actor }: Call,
  { email, password }: { email: string; password: z.infer<typeof givenPassword> },
) {
  const user = await platform.database.read(system(actor.origin), (tx) =>
    tx.user.findFirst({ where: { email, disabledAt: null }, select: { id: true, passwordHash: true } }),
  )
  const matches = await platform.hasher.matches(password, user?.passwordHash ?? null)
  return matches && user ? user.id : null
}

export const signIn = operation({
  name: 'signIn',
  requires: isPublic,
  input: z.strictObject({
    email: emailAddress,
    password: givenPassword,
    organization: z
      .string()
      .max(63)
      .optional()
      .describe('Slug of the organisation to act in. Default: the one joined first.'),
  }),
  runAs: 'system',
  prepare: checkPassword,
  run: async ({ tx, prepared: userId, ...call }, { organization }) => {
    if (!userId) throw invalid()
    const membership = await tx.membership.findFirst({
      where: { userId, deactivatedAt: null, ...(organization ? { organization: { slug: organization } } : {}) },
      orderBy: { createdAt: 'asc' },
      select: { orgId: true, role: true },
    })
    if (!membership) throw invalid()
    return openSession(tx, call, { userId, ...membership })
  },
  audit: ({ id, userId, orgId }) => ({ action: 'session.opened', target: id, userId, orgId }),
})

export const signOut = operation({
  name: 'signOut',
  requires: authenticated,
  input: z.strictObject({}),
  run: async ({ tx, actor, now }) => {
    if (actor.kind !== 'user')
      throw new AppError('BAD_USER_INPUT', 'An API key has no session to end; revoke the key instead.')
    return tx.session.update({ where: { id: actor.credentialId }, data: { revokedAt: now }, select: { id: true } })
  },
  audit: ({ id }) => ({ action: 'session.ended', target: id }),
})
