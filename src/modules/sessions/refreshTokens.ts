import { createHash, randomBytes } from 'node:crypto'
import type { Tx } from '../../kernel/database/door.ts'
import { Secret } from '../../kernel/secret.ts'

const dayMs = 86_400_000
/** A session ends when it was not refreshed for so long … */
const slidingDays = 30
/** … and, however often it was, so long after its sign-in. */
const absoluteDays = 90

export const newRefreshToken = (): Secret => new Secret(randomBytes(32).toString('base64url'))

// 256 random bits need no slow hash.
export const hashOfToken = (token: Secret): string => createHash('sha256').update(token.reveal()).digest('hex')

/** When a session that was opened then and refreshed now ends, unless it is refreshed again. */
export const slidingExpiry = (openedAt: Date, now: Date): Date =>
  new Date(Math.min(now.getTime() + slidingDays * dayMs, openedAt.getTime() + absoluteDays * dayMs))

/** The first token of a session's family, in the transaction that opens the session. */
export async function beginFamily(tx: Tx, sessionId: string, now: Date): Promise<Secret> {
  const token = newRefreshToken()
  await tx.refreshToken.createMany({ data: [{ tokenHash: hashOfToken(token), sessionId, createdAt: now }] })
  return token
}
