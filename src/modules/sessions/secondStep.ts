import { z } from 'zod'
import { AppError } from '../../kernel/errors.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { procedure } from '../../kernel/operation.ts'
import type { Role } from '../../kernel/permissions.ts'
import { isPublic } from '../../kernel/rule.ts'
import {
  assertionJson,
  assertionOptions,
  completeProof,
  proofFields,
  sendEmailCode,
  useAssertion,
  wrongProof,
} from '../accounts/factors.ts'
import { boundToSignIn, challengeEnded, closeChallenge, findChallenge, tryChallenge } from './challenges.ts'
import { openSession, type OpenedSession } from './operations.ts'
import { attempt, judge } from './stepUpAttempt.ts'

const challengeId = z.string().min(1).max(100).describe('The `id` of the challenge that `signIn` answered with.')

/** What a sign-in without a password is bound to: nobody yet, so no other ceremony can use its challenge. */
const passwordless = { userId: null, boundTo: 'passwordless' }

/** The membership to act in, if the user may still sign in to it. */
const activeMembership = (
  tx: Tx,
  userId: string,
  where: { orgId?: string; slug?: string },
): Promise<{ orgId: string; role: Role } | null> =>
  tx.membership.findFirst({
    where: {
      userId,
      deactivatedAt: null,
      user: { disabledAt: null },
      ...(where.orgId ? { orgId: where.orgId } : {}),
      ...(where.slug ? { organization: { slug: where.slug } } : {}),
    },
    orderBy: { createdAt: 'asc' },
    select: { orgId: true, role: true },
  })

export const completeSignIn = procedure({
  name: 'completeSignIn',
  requires: isPublic,
  input: z.strictObject({ challengeId, ...proofFields }),
  perform: async (call, { challengeId: token, ...proof }): Promise<OpenedSession> => {
    completeProof(proof)
    return attempt(call, async (work) => {
      const { tx, now } = work
      const challenge = await tryChallenge(tx, token, now)
      if (!challenge) return { refused: challengeEnded(), audit: null }
      const { userId, orgId } = challenge
      const occasion = { userId, orgId, boundTo: boundToSignIn(challenge) }
      const refusal = await judge(work, { kind: 'user', id: userId }, occasion, proof)
      if (refusal) return refusal
      await closeChallenge(tx, challenge, now)
      const membership = await activeMembership(tx, userId, { orgId })
      if (!membership) return { refused: challengeEnded(), audit: null }
      const session = await openSession(tx, call, { userId, ...membership }, now)
      const detail = { method: proof.method }
      return { done: session, audit: { action: 'session.opened', target: session.id, userId, orgId, detail } }
    })
  },
})

/** The address of whoever signs in, for a code that only this sign-in can use. */
export const sendSignInCode = procedure({
  name: 'sendSignInCode',
  requires: isPublic,
  input: z.strictObject({ challengeId }),
  perform: (call, { challengeId: token }) =>
    attempt(call, async (work) => {
      const challenge = await findChallenge(work.tx, token, call.now)
      const { userId, orgId } = challenge
      const factor = await work.tx.secondFactor.findFirst({
        where: { userId, kind: 'EMAIL', confirmedAt: { not: null } },
        select: { id: true, user: { select: { email: true } } },
      })
      if (!factor) throw new AppError('CONFLICT', 'This account takes no codes by e-mail.')
      const { email } = factor.user
      const done = await sendEmailCode(work, { userId, email, boundTo: boundToSignIn(challenge) })
      return { done, audit: { action: 'secondFactor.codeSent', target: factor.id, userId, orgId } }
    }),
})

export const startPasskeySignIn = procedure({
  name: 'startPasskeySignIn',
  requires: isPublic,
  input: z.strictObject({
    challengeId: challengeId.optional().describe('For a second factor. Without it: a sign-in without a password.'),
  }),
  perform: (call, { challengeId: token }) =>
    attempt(call, async ({ tx, platform, now }) => {
      const challenge = token === undefined ? null : await findChallenge(tx, token, now)
      const ceremony = challenge ? { userId: challenge.userId, boundTo: boundToSignIn(challenge) } : passwordless
      return { done: await assertionOptions(tx, { platform, now }, ceremony), audit: null }
    }),
})

/** A passkey that asked for finger or PIN is possession and knowledge (or inherence) in one: both factors at once. */
export const signInWithPasskey = procedure({
  name: 'signInWithPasskey',
  requires: isPublic,
  input: z.strictObject({
    assertion: assertionJson.describe('What `navigator.credentials.get()` gave, as its `toJSON()` writes it.'),
    organization: z
      .string()
      .max(63)
      .optional()
      .describe('Slug of the organisation to act in. Default: the one joined first.'),
  }),
  perform: (call, { assertion, organization }): Promise<OpenedSession> =>
    attempt(call, async ({ tx, platform, now }) => {
      const used = await useAssertion(tx, { platform, now }, passwordless, assertion)
      if (!used.ok) {
        const { cloned } = used
        const audit = cloned && { action: 'secondFactor.counterRegressed', target: cloned.id, userId: cloned.userId }
        return { refused: wrongProof(), audit }
      }
      const { userId } = used
      const membership = await activeMembership(tx, userId, organization ? { slug: organization } : {})
      if (!membership) return { refused: wrongProof(), audit: null }
      const session = await openSession(tx, call, { userId, ...membership }, now)
      const { orgId } = membership
      const detail = { method: 'PASSKEY', passwordless: true }
      return { done: session, audit: { action: 'session.opened', target: session.id, userId, orgId, detail } }
    }),
})
