import { createHash, randomBytes } from 'node:crypto'
import { z } from 'zod'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError } from '../../kernel/errors.ts'
import { mailer, type MailWork } from '../../kernel/mail.ts'
import type { Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'

export type TokenPurpose = 'passwordReset' | 'emailVerification'
const lifeMinutes: Record<TokenPurpose, number> = { passwordReset: 30, emailVerification: 24 * 60 }

/** Mails that an account's address gets in an hour, whoever asks for them. */
const mailsPerHour = 3
const hourMs = 3_600_000
const nobody = '00000000-0000-0000-0000-000000000000'

export const givenToken = z.string().min(1).max(100).transform((text) => new Secret(text)) // prettier-ignore

// 256 random bits need no slow hash.
export const hashOfMailToken = (token: Secret): string => createHash('sha256').update(token.reveal()).digest('hex')
export const newMailToken = (): Secret => new Secret(randomBytes(32).toString('base64url'))

/** How a mail hands over a token: by a link to the operator's frontend, where there is one, and by itself. */
export function handOver({ config }: Platform, page: string, token: Secret): string {
  // In the fragment, which browsers send to no server and write to no Referer.
  const link = config.frontendUrl
    ? `${config.frontendUrl}/${page}#token=${token.reveal()}\n\nOr give this token:\n\n`
    : ''
  return `${link}${token.reveal()}`
}

type Letter = { subject: string; text: (token: string) => string }

/**
 * Mails a single-use token to a user. For nobody, and for an address that had its mails of this hour, it does the same
 * work and sends nothing: neither the answer nor its time tells which it was.
 */
export async function mailToken(
  work: MailWork & { platform: Platform },
  { purpose, email, userId, page, letter }: { purpose: TokenPurpose; email: string; userId: string | null; page: string; letter: Letter }, // prettier-ignore
): Promise<void> {
  const { tx, now, platform } = work
  // Requests for one address take turns, or many at once would all find the hour empty.
  await tx.$executeRaw`SELECT pg_advisory_xact_lock(hashtextextended(${email}, 4101968213))`
  const sent = await tx.oneTimeToken.count({
    where: { userId: userId ?? nobody, createdAt: { gt: new Date(now.getTime() - hourMs) } },
  })
  const goes = userId !== null && sent < mailsPerHour
  const token = newMailToken()
  const expiresAt = new Date(now.getTime() + lifeMinutes[purpose] * 60_000)
  await tx.oneTimeToken.createMany({
    data: [{ tokenHash: hashOfMailToken(token), userId: goes ? userId : null, purpose, createdAt: now, expiresAt }],
  })
  const text = letter.text(handOver(platform, page, token))
  await mailer(platform).send(work, { to: goes ? email : null, subject: letter.subject, text })
}

const wrong = (): AppError =>
  new AppError('INVALID_CREDENTIALS', 'This token is not valid: it was used, has expired, or never was.')

const open = (token: Secret, purpose: TokenPurpose, now: Date) => ({
  tokenHash: hashOfMailToken(token),
  purpose,
  usedAt: null,
  expiresAt: { gt: now },
  userId: { not: null },
})

/** The user of a token that could be used now; it stays usable. */
export async function ownerOfToken(tx: Tx, token: Secret, purpose: TokenPurpose, now: Date) {
  const found = await tx.oneTimeToken.findFirst({
    where: open(token, purpose, now),
    select: { user: { select: { id: true, email: true, name: true, disabledAt: true } } },
  })
  if (!found?.user || found.user.disabledAt) throw wrong()
  return found.user
}

/** Uses a token up, once, and with it every other one of its user and purpose. */
export async function useToken(tx: Tx, token: Secret, purpose: TokenPurpose, now: Date): Promise<void> {
  const { id: userId } = await ownerOfToken(tx, token, purpose, now)
  const used = await tx.oneTimeToken.updateMany({ where: open(token, purpose, now), data: { usedAt: now } })
  if (used.count !== 1) throw wrong()
  await tx.oneTimeToken.updateMany({ where: { userId, purpose, usedAt: null }, data: { usedAt: now } })
}
