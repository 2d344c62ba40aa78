import { createHash, randomBytes } from 'node:crypto'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError } from '../../kernel/errors.ts'
import { Secret } from '../../kernel/secret.ts'
import type { SecondFactorMethod } from '../accounts/factors.ts'

const lifeSeconds = 300
const maxAttempts = 5

/** A sign-in whose password was right, as its caller sees it. The token is what proves that password step. */
export type OpenedChallenge = {
  token: Secret
  id: string
  userId: string
  orgId: string
  methods: SecondFactorMethod[]
  expiresAt: Date
}

/** What a challenge is to the platform. */
export type Challenge = { id: string; userId: string; orgId: string }

const hashOf = (token: string): string => createHash('sha256').update(token).digest('hex')

/** What codes and passkey ceremonies of a sign-in are bound to. */
export const boundToSignIn = ({ id }: { id: string }): string => `signIn:${id}`

/**
 * Opens the second step of a sign-in. Its token is new and random, made after the password was checked and known to that
 * caller alone, so nobody can prepare a sign-in for somebody else to finish (session fixation).
 */
export async function openChallenge(
  tx: Tx,
  now: Date,
  { userId, orgId }: { userId: string; orgId: string },
  methods: SecondFactorMethod[],
): Promise<OpenedChallenge> {
  await tx.$executeRaw`DELETE FROM sign_in_challenges WHERE id IN (
    SELECT id FROM sign_in_challenges WHERE expires_at < ${now} ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED)`
  const token = randomBytes(32).toString('base64url')
  const expiresAt = new Date(now.getTime() + lifeSeconds * 1000)
  const { id } = await tx.signInChallenge.create({
    data: { tokenHash: hashOf(token), userId, orgId, createdAt: now, expiresAt },
    select: { id: true },
  })
  return { token: new Secret(token), id, userId, orgId, methods, expiresAt }
}

/** The same for unknown, expired, used and used-up challenges: there is nothing to learn from asking. */
export const challengeEnded = (): AppError =>
  new AppError('INVALID_CREDENTIALS', 'This sign-in is over. Start again with your password.')

const open = (token: string, now: Date) => ({
  tokenHash: hashOf(token),
  usedAt: null,
  expiresAt: { gt: now },
  attempts: { lt: maxAttempts },
  user: { disabledAt: null },
})
const facts = { id: true, userId: true, orgId: true } as const

/** An open challenge, without counting a try: to send a code for it, or to ask a passkey. */
export async function findChallenge(tx: Tx, token: string, now: Date): Promise<Challenge> {
  const found = await tx.signInChallenge.findFirst({ where: open(token, now), select: facts })
  if (!found) throw challengeEnded()
  return found
}

/** Counts a try and holds the row until the transaction ends, so that of two answers at once the second sees the first. */
export async function tryChallenge(tx: Tx, token: string, now: Date): Promise<Challenge | null> {
  const [row] = await tx.$queryRaw<Challenge[]>`
    UPDATE sign_in_challenges SET attempts = attempts + 1
    WHERE token_hash = ${hashOf(token)} AND used_at IS NULL AND expires_at > ${now} AND attempts < ${maxAttempts}
    RETURNING id::text, user_id::text AS "userId", org_id::text AS "orgId"`
  return row ?? null
}

export const closeChallenge = (tx: Tx, { id }: Challenge, now: Date): Promise<unknown> =>
  tx.signInChallenge.updateMany({ where: { id }, data: { usedAt: now } })
