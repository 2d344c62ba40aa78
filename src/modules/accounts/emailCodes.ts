import { randomInt } from 'node:crypto'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError } from '../../kernel/errors.ts'
import { mailer, type MailWork } from '../../kernel/mail.ts'
import type { Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'

const digits = 8
const lifeSeconds = 600
const maxAttempts = 5
const maxSent = 3
const sentWindowSeconds = 900

// Eight digits are soon searched through, so only the keyed hash is stored: it says nothing without the master key.
const hashes = (platform: Platform, userId: string, boundTo: string, code: string): string[] =>
  platform.vault.macs('mfaSecret', ['emailCode', userId, boundTo], new Secret(code))

/** One send at a time for a user, so that the limit holds against senders that race; then the count of the window. */
async function admitSend(tx: Tx, userId: string, now: Date): Promise<void> {
  await tx.$executeRaw`SELECT pg_advisory_xact_lock(hashtextextended(${`emailCode:${userId}`}, 0))`
  const since = new Date(now.getTime() - sentWindowSeconds * 1000)
  const sent = await tx.emailCode.findMany({
    where: { userId, createdAt: { gt: since } },
    orderBy: { createdAt: 'asc' },
    select: { createdAt: true },
  })
  const [oldest] = sent
  if (!oldest || sent.length < maxSent) return
  const wait = Math.ceil((oldest.createdAt.getTime() - since.getTime()) / 1000)
  throw new AppError('RATE_LIMITED', `${maxSent} codes were sent already. Wait before you ask for another.`, {
    retryAfterSeconds: Math.max(1, wait),
  })
}

/** Mails a code that is good once, for what it is bound to, and only until another one is sent. */
export async function sendEmailCode(
  work: MailWork & { platform: Platform },
  { userId, email, boundTo }: { userId: string; email: string; boundTo: string },
): Promise<{ expiresAt: Date }> {
  const { tx, platform, now } = work
  await admitSend(tx, userId, now)
  const code = randomInt(10 ** digits)
    .toString()
    .padStart(digits, '0')
  const expiresAt = new Date(now.getTime() + lifeSeconds * 1000)
  await tx.emailCode.updateMany({ where: { userId, boundTo, usedAt: null }, data: { usedAt: now } })
  const codeHash = hashes(platform, userId, boundTo, code)[0] ?? ''
  await tx.emailCode.createMany({ data: [{ userId, boundTo, codeHash, createdAt: now, expiresAt }] })
  await mailer(platform).send(work, {
    to: email,
    subject: 'Your verification code',
    text: [
      `Your code is ${code}. It is good for ${lifeSeconds / 60} minutes, once, at ${platform.publicUrl}.`,
      'Nobody from us will ever ask you for it. If you did not ask for it, change your password.',
    ].join('\n\n'),
  })
  return { expiresAt }
}

/** Takes the code that was sent last for what it is bound to. Each try counts, and the fifth is the last. */
export async function useEmailCode(
  tx: Tx,
  { platform, now }: { platform: Platform; now: Date },
  { userId, boundTo }: { userId: string; boundTo: string },
  code: Secret,
): Promise<boolean> {
  const open = { userId, boundTo, usedAt: null, expiresAt: { gt: now }, attempts: { lt: maxAttempts } }
  const tried = await tx.emailCode.updateMany({ where: open, data: { attempts: { increment: 1 } } })
  if (tried.count === 0) return false
  const wanted = hashes(platform, userId, boundTo, code.reveal().replace(/[\s-]/g, ''))
  const { count } = await tx.emailCode.updateMany({
    where: { userId, boundTo, usedAt: null, expiresAt: { gt: now }, codeHash: { in: wanted } },
    data: { usedAt: now },
  })
  return count === 1
}
