import { z } from 'zod'
import { stepUpWindowSeconds, type Actor } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError, badInput } from '../../kernel/errors.ts'
import { procedure, type Call } from '../../kernel/operation.ts'
import { authenticated } from '../../kernel/rule.ts'
import type { Secret } from '../../kernel/secret.ts'
import { tenantOf } from '../../kernel/source.ts'
import {
  assertionOptions,
  completeProof,
  countTry,
  forgetTries,
  methodsOf,
  proofFields,
  sendEmailCode,
} from '../accounts/factors.ts'
import type { OpenedSession } from './operations.ts'
import { attempt, judge, type Outcome } from './stepUpAttempt.ts'

/** A session that stands at this moment, and its person. */
export type Standing = OpenedSession & { email: string; name: string; passwordHash: string }

export const boundToSession = ({ id }: { id: string }): string => `session:${id}`

/**
 * The caller's session, confirmed by the database. These verbs run as the platform, also for a member who is held to
 * enrolling, so they ask themselves what `app.identify` asks for others. A program has no second factor to give.
 */
export async function standingSession(tx: Tx, actor: Actor, now: Date): Promise<Standing> {
  if (actor.kind === 'apiKey')
    throw new AppError('FORBIDDEN', 'Second factors belong to people: sign in, an API key cannot do this.')
  if (actor.kind !== 'user') throw new AppError('UNAUTHENTICATED', 'Sign in first.')
  const { credentialId: id, userId, orgId, role } = actor
  const membership = { orgId, role, deactivatedAt: null }
  const row = await tx.session.findFirst({
    where: {
      ...{ id, userId, orgId, revokedAt: null, expiresAt: { gt: now } },
      user: { disabledAt: null, memberships: { some: membership } },
    },
    select: { expiresAt: true, mfaAt: true, user: { select: { email: true, name: true, passwordHash: true } } },
  })
  if (!row) throw new AppError('UNAUTHENTICATED', 'Your credential is no longer valid. Sign in again.')
  const { user, ...session } = row
  return { ...session, ...user, id, userId, orgId, role }
}

/** From now on, and for ten minutes, the session holds a fresh second factor. */
export async function freshen(tx: Tx, session: Standing, now: Date): Promise<OpenedSession> {
  const { id, userId, orgId, role, expiresAt } = session
  const { count } = await tx.session.updateMany({ where: { id, revokedAt: null }, data: { mfaAt: now } })
  if (count !== 1) throw new AppError('UNAUTHENTICATED', 'Your credential is no longer valid. Sign in again.')
  return { id, userId, orgId, role, expiresAt, mfaAt: now }
}

export const stepUp = procedure({
  name: 'stepUp',
  requires: authenticated,
  input: z.strictObject(proofFields),
  perform: async (call, proof): Promise<OpenedSession> => {
    completeProof(proof)
    return attempt(call, async (work): Promise<Outcome<OpenedSession>> => {
      const { tx, now, actor } = work
      const session = await standingSession(tx, actor, now)
      const { id, userId, orgId } = session
      const occasion = { userId, orgId, boundTo: boundToSession(session) }
      const refusal = await judge(work, { kind: 'session', id }, occasion, proof)
      if (refusal) return refusal
      const done = await freshen(tx, session, now)
      return { done, audit: { action: 'session.steppedUp', target: id, detail: { method: proof.method } } }
    })
  },
})

export const sendStepUpCode = procedure({
  name: 'sendStepUpCode',
  requires: authenticated,
  input: z.strictObject({}),
  perform: (call) =>
    attempt(call, async (work) => {
      const session = await standingSession(work.tx, call.actor, call.now)
      const { userId, email } = session
      if (!(await methodsOf(work.tx, userId)).includes('EMAIL'))
        throw new AppError('CONFLICT', 'This account takes no codes by e-mail.')
      const done = await sendEmailCode(work, { userId, email, boundTo: boundToSession(session) })
      return { done, audit: { action: 'secondFactor.codeSent', target: userId } }
    }),
})

export const startPasskeyStepUp = procedure({
  name: 'startPasskeyStepUp',
  requires: authenticated,
  input: z.strictObject({}),
  perform: (call) =>
    attempt(call, async ({ tx, platform, now, actor }) => {
      const session = await standingSession(tx, actor, now)
      const ceremony = { userId: session.userId, boundTo: boundToSession(session) }
      return { done: await assertionOptions(tx, { platform, now }, ceremony), audit: null }
    }),
})

/**
 * What any change of one's factors asks for first: a fresh second factor where there is one, else the password again, so
 * that a token alone, found or stolen, can neither add a factor nor take one away. A null password: only the former will do.
 */
export async function confirmPresence(call: Call, password: Secret | undefined | null): Promise<void> {
  const { platform, now, actor } = call
  const checked = await attempt(call, async ({ tx }) => {
    const session = await standingSession(tx, actor, now)
    const methods = await methodsOf(tx, session.userId)
    const { mfaAt } = session
    const fresh = mfaAt !== null && now.getTime() - mfaAt.getTime() < stepUpWindowSeconds * 1000
    if (methods.length && !fresh)
      throw new AppError('MFA_REQUIRED', 'This needs a second factor given within the last ten minutes.', {
        extensions: { methods },
      })
    if (methods.length) return { done: null, audit: null }
    if (!password)
      throw password === null
        ? new AppError('CONFLICT', 'You have no second factor yet. Enrol one first.')
        : badInput([{ path: ['password'], message: 'expected your password' }])
    const tooMany = await countTry(tx, { kind: 'session', id: session.id }, now)
    return tooMany ? { refused: tooMany, audit: null } : { done: { session, password }, audit: null }
  })
  if (!checked) return
  const { session } = checked
  // Between two transactions, since none is held while bcrypt works.
  const matches = await platform.hasher.matches(checked.password, session.passwordHash, tenantOf(call.actor))
  await attempt(call, async ({ tx }): Promise<Outcome<null>> => {
    if (!matches) {
      const audit = { action: 'secondFactor.passwordRefused', target: session.userId }
      return { refused: new AppError('INVALID_CREDENTIALS', 'The password is wrong.'), audit }
    }
    await forgetTries(tx, { kind: 'session', id: session.id }, now)
    return { done: null, audit: null }
  })
}
