import { z } from 'zod'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError } from '../../kernel/errors.ts'
import { operation, type Operation } from '../../kernel/operation.ts'
import { scopes, type Scope } from '../../kernel/permissions.ts'
import { isPublic } from '../../kernel/rule.ts'
import { Secret } from '../../kernel/secret.ts'
import { MasterKey } from '../../kernel/vault.ts'
import { methodsOf } from '../accounts/factors.ts'
import { enrolmentScopes, type OpenedSession } from './operations.ts'
import { hashOfToken, newRefreshToken, slidingExpiry } from './refreshTokens.ts'

/** How long a token that was just rotated still answers, with the very successor it has: two tabs, a lost answer. */
const graceSeconds = 10

type Found = { id: string; user_id: string; org_id: string; created_at: Date; mfa_at: Date | null }
type Rotation = { session: Found; reused: boolean; token: Secret }

// The successor is sealed under the token that it follows. Whoever presents that token within the grace is answered with
// the same successor, so the line never forks; the database alone gives away neither.
const lockOf = (token: Secret): MasterKey => new MasterKey(Buffer.from(token.reveal(), 'base64url').toString('base64'))
const sealSuccessor = (token: Secret, next: Secret, sessionId: string): string =>
  lockOf(token).wrap(Buffer.from(next.reveal()), sessionId).toString('base64url')
const openSuccessor = (token: Secret, sealed: string, sessionId: string): Secret =>
  new Secret(lockOf(token).unwrap(Buffer.from(sealed, 'base64url'), sessionId).toString())

/** The session of a token, if it stands; held to the end of the transaction, so that a family moves one step at a time. */
async function holdSession(tx: Tx, token: Secret, now: Date): Promise<Found | null> {
  const [found] = await tx.$queryRaw<Found[]>`
    SELECT s.id::text, s.user_id::text, s.org_id::text, s.created_at, s.mfa_at FROM sessions s
    WHERE s.id = (SELECT t.session_id FROM refresh_tokens t WHERE t.token_hash = ${hashOfToken(token)})
      AND s.revoked_at IS NULL AND s.expires_at > ${now}
    FOR UPDATE`
  return found ?? null
}

/** One step of the family, or the last step again within the grace, or the end of the family. */
async function rotate(tx: Tx, presented: Secret, now: Date): Promise<Rotation | null> {
  const session = await holdSession(tx, presented, now)
  if (!session) return null
  const rowOf = (token: Secret) =>
    tx.refreshToken.findFirst({
      where: { tokenHash: hashOfToken(token), sessionId: session.id },
      select: { rotatedAt: true, successor: true },
    })
  const graceBegins = new Date(now.getTime() - graceSeconds * 1000)
  let token = presented
  let row = await rowOf(token)
  const late = row?.rotatedAt && (row.rotatedAt < graceBegins || row.successor === null)
  if (!row || late) {
    await tx.session.update({ where: { id: session.id }, data: { revokedAt: now }, select: { id: true } })
    return { session, reused: true, token }
  }
  if (row.rotatedAt === null) return { session, reused: false, token: await step(tx, session.id, token, now) }
  // Another tab may have gone several steps on; the cookie that both share must be the last one.
  while (row?.rotatedAt && row.successor !== null) {
    token = openSuccessor(token, row.successor, session.id)
    row = await rowOf(token)
  }
  return { session, reused: false, token }
}

async function step(tx: Tx, sessionId: string, token: Secret, now: Date): Promise<Secret> {
  const next = newRefreshToken()
  const past = new Date(now.getTime() - graceSeconds * 1000)
  await tx.refreshToken.updateMany({ where: { sessionId, rotatedAt: { lt: past }, successor: { not: null } }, data: { successor: null } }) // prettier-ignore
  await tx.refreshToken.createMany({ data: [{ tokenHash: hashOfToken(next), sessionId, createdAt: now }] })
  await tx.refreshToken.updateMany({
    where: { tokenHash: hashOfToken(token) },
    data: { rotatedAt: now, successor: sealSuccessor(token, next, sessionId) },
  })
  return next
}

const ended = (): AppError => new AppError('UNAUTHENTICATED', 'There is no session to refresh. Sign in again.')

type Refreshed = OpenedSession & { refreshToken: Secret }
type Outcome = { reused: true; session: Found } | { reused: false; session: Refreshed }

const rotation = operation({
  name: 'refreshSession',
  requires: isPublic,
  input: z.strictObject({
    refreshToken: z.custom<Secret>((value) => value instanceof Secret).nullable(),
    sameOrigin: z.boolean(),
    scopes: z
      .array(z.enum(scopes))
      .min(1)
      .max(scopes.length)
      .optional()
      .describe('Ask for a token that holds these and no more, e.g. `["mcp:read"]`. Default: all that the role holds.'),
  }),
  runAs: 'system',
  prepare: (_call, { sameOrigin, refreshToken }) => {
    // SameSite=Strict is the first lock; a page of another port or a sibling domain is stopped by these two.
    if (!sameOrigin)
      throw new AppError(
        'FORBIDDEN',
        'Send this from the platform’s own origin, with the header X-Requested-With: mcp-platform.',
      )
    return Promise.resolve(refreshToken)
  },
  run: async ({ tx, prepared: presented, now }, { scopes: wanted }): Promise<Outcome> => {
    const rotated = presented && (await rotate(tx, presented, now))
    if (!rotated) throw ended()
    const { session, reused, token } = rotated
    if (reused) return { reused, session }
    const { user_id: userId, org_id: orgId } = session
    const membership = await tx.membership.findFirst({
      where: { userId, orgId, deactivatedAt: null, user: { disabledAt: null } },
      select: { role: true, organization: { select: { requireMfa: true } } },
    })
    if (!membership) throw ended()
    const mustEnrol = membership.organization.requireMfa && (await methodsOf(tx, userId)).length === 0
    const held: readonly Scope[] = mustEnrol ? enrolmentScopes : scopes
    const expiresAt = slidingExpiry(session.created_at, now)
    await tx.session.update({ where: { id: session.id }, data: { expiresAt, lastUsedAt: now }, select: { id: true } })
    const { id, mfa_at: mfaAt } = session
    const given = wanted ? held.filter((scope) => wanted.includes(scope)) : held
    return {
      reused,
      session: { id, userId, orgId, role: membership.role, expiresAt, mfaAt, given, refreshToken: token },
    }
  },
  audit: ({ reused, session }) =>
    reused
      ? { action: 'session.reuseDetected', target: session.id, userId: session.user_id, orgId: session.org_id }
      : { action: 'session.refreshed', target: session.id, userId: session.userId, orgId: session.orgId },
})

/**
 * Continues a session by the refresh token of its cookie. A token that was used before ends its whole family: that is
 * committed and in the trail before the caller hears of it (RFC 9700, section 4.14.2).
 */
export const refreshSession: Operation<z.infer<typeof rotation.input>, Refreshed> = {
  ...rotation,
  async run(caller, raw) {
    const outcome = await rotation.run(caller, raw)
    if (!outcome.reused) return outcome.session
    const { id: session } = outcome.session
    caller.platform.log.warn({ session, requestId: caller.actor.origin.requestId }, 'a refresh token came twice')
    throw ended()
  },
}
