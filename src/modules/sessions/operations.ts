import { z } from 'zod'
import { member, type Member } from '../../kernel/actor.ts'
import { system } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError } from '../../kernel/errors.ts'
import { operation, type Call } from '../../kernel/operation.ts'
import { scopes as allScopes, type Role, type Scope } from '../../kernel/permissions.ts'
import { authenticated, isPublic } from '../../kernel/rule.ts'
import type { Secret } from '../../kernel/secret.ts'
import { tenantOf } from '../../kernel/source.ts'
import { methodsOf } from '../accounts/factors.ts'
import { emailAddress, givenPassword } from '../accounts/operations.ts'
import { strengthenHash } from '../accounts/passwords.ts'
import { requireVerified } from '../accounts/verification.ts'
import { openChallenge, type OpenedChallenge } from './challenges.ts'
import { beginFamily, slidingExpiry } from './refreshTokens.ts'
import { guardSignIn } from './signInGuard.ts'
import { issueAccessToken } from './tokens.ts'

/** What a sign-in gives: the token, and the member that the rest of the request acts as. */
export type SignedIn = { accessToken: string; expiresAt: Date; actor: Member }

export type OpenedSession = {
  id: string
  userId: string
  orgId: string
  role: Role
  expiresAt: Date
  mfaAt: Date | null
  /** For the cookie, where the session was just opened or refreshed. */
  refreshToken?: Secret
  /** Default: every scope that the role can hold. */
  given?: readonly Scope[]
}

/**
 * What a member holds who has no second factor where the organisation requires one: enough to see oneself and to enrol.
 * A session that stood before is held to the same by `app.identify`, at its next statement.
 */
export const enrolmentScopes: readonly Scope[] = ['user:read', 'user:write']

/** Opens a session in the transaction of a sign-in; `mfaAt` where that sign-in took a second factor. */
export async function openSession(
  tx: Tx,
  { actor, now }: Pick<Call, 'actor' | 'now'>,
  who: { userId: string; orgId: string; role: Role },
  mfaAt: Date | null = null,
): Promise<OpenedSession> {
  const { ip, userAgent } = actor.origin
  const expiresAt = slidingExpiry(now, now)
  const session = await tx.session.create({
    data: { userId: who.userId, orgId: who.orgId, createdAt: now, expiresAt, ip, userAgent, mfaAt },
    select: { id: true, userId: true, orgId: true, expiresAt: true, mfaAt: true },
  })
  return { ...session, role: who.role, refreshToken: await beginFamily(tx, session.id, now) }
}

/** The access token of a session that was just opened, after its transaction committed. */
export async function signedIn(
  { platform, actor, now }: Omit<Call, 'signal'>,
  session: OpenedSession,
): Promise<SignedIn> {
  const { id, userId, orgId, role, mfaAt, given = allScopes } = session
  const token = await issueAccessToken(platform, session, { role, scopes: given }, now)
  const facts = {
    kind: 'user',
    userId,
    orgId,
    role,
    credentialId: id,
    mfaAt,
    origin: actor.origin,
    given,
  } as const
  return { ...token, actor: member(facts, now) }
}

const invalid = (): AppError => new AppError('INVALID_CREDENTIALS', 'E-mail or password is wrong.')

/** Checks the password before any transaction opens, with the same work whether or not the account exists. */
async function checkPassword(
  call: Call,
  { email, password }: { email: string; password: z.infer<typeof givenPassword> },
) {
  const { platform, actor } = call
  const user = await platform.database.read(system(actor.origin), (tx) =>
    tx.user.findFirst({ where: { email, disabledAt: null }, select: { id: true, passwordHash: true } }),
  )
  const matches = await platform.hasher.matches(password, user?.passwordHash ?? null, tenantOf(call.actor))
  if (!matches || !user) return null
  await requireVerified(call, user.id)
  await strengthenHash(call, user.id, password, user.passwordHash)
  return user.id
}

/** A right password opens the session, or, where the account has a second factor, the step that asks for it. */
export type SignInOutcome = { session: OpenedSession; challenge: null } | { session: null; challenge: OpenedChallenge }

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
  prepare: (call, input) => guardSignIn(call, input.email, () => checkPassword(call, input)),
  run: async ({ tx, prepared: userId, ...call }, { organization }): Promise<SignInOutcome> => {
    if (!userId) throw invalid()
    const membership = await tx.membership.findFirst({
      where: { userId, deactivatedAt: null, ...(organization ? { organization: { slug: organization } } : {}) },
      orderBy: { createdAt: 'asc' },
      select: { orgId: true, role: true, organization: { select: { requireMfa: true } } },
    })
    if (!membership) throw invalid()
    const { orgId, role } = membership
    const methods = await methodsOf(tx, userId)
    if (methods.length)
      return { session: null, challenge: await openChallenge(tx, call.now, { userId, orgId }, methods) }
    const session = await openSession(tx, call, { userId, orgId, role })
    const mustEnrol = membership.organization.requireMfa
    return { session: mustEnrol ? { ...session, given: enrolmentScopes } : session, challenge: null }
  },
  audit: ({ session, challenge }) =>
    session
      ? { action: 'session.opened', target: session.id, userId: session.userId, orgId: session.orgId }
      : { action: 'session.challenged', target: challenge.id, userId: challenge.userId, orgId: challenge.orgId },
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
