import { z } from 'zod'
import { system } from '../../kernel/actor.ts'
import { AppError } from '../../kernel/errors.ts'
import type { MailWork } from '../../kernel/mail.ts'
import { operation, type Call } from '../../kernel/operation.ts'
import type { Platform } from '../../kernel/platform.ts'
import { isPublic } from '../../kernel/rule.ts'
import { givenToken, mailToken, ownerOfToken, useToken } from './verificationTokens.ts'

/** Mails the proof that an address belongs to whoever signed up with it. */
export const mailVerification = (
  work: MailWork & { platform: Platform },
  { id: userId, email }: { id: string; email: string },
): Promise<void> =>
  mailToken(work, {
    purpose: 'emailVerification',
    email,
    userId,
    page: 'verify-email',
    letter: {
      subject: 'Confirm your e-mail address',
      text: (token) =>
        `Somebody, we hope you, made an account on ${work.platform.publicUrl} with this address.\n\nConfirm it within 24 hours:\n\n${token}\n\nIf it was not you, do nothing: without this the account cannot be used.\n`,
    },
  })

/** To the owner of an account, when somebody signs up with its address again: the caller is told nothing. */
export const mailAccountExists = (
  work: MailWork & { platform: Platform },
  { id: userId, email }: { id: string; email: string },
): Promise<void> =>
  mailToken(work, {
    purpose: 'passwordReset',
    email,
    userId,
    page: 'reset-password',
    letter: {
      subject: 'You have an account already',
      text: (token) =>
        `Somebody, perhaps you, signed up on ${work.platform.publicUrl} with this address, but you have an account already. Sign in with your password.\n\nIf you forgot it, choose a new one within 30 minutes:\n\n${token}\n\nIf it was not you, do nothing.\n`,
    },
  })

/**
 * Refuses the sign-in of an account whose address is not proven, and mails the proof again. Only to be asked after the
 * password was found right, since the refusal says that the account exists.
 */
export async function requireVerified({ platform, actor, now }: Call, userId: string): Promise<void> {
  if (!platform.config.emailVerification) return
  const effects: (() => Promise<void> | void)[] = []
  const verified = await platform.database.transact(system(actor.origin), async (tx) => {
    const user = await tx.user.findUniqueOrThrow({
      where: { id: userId },
      select: { id: true, email: true, emailVerifiedAt: true },
    })
    if (user.emailVerifiedAt) return true
    const work = { tx, actor: system(actor.origin), now, platform, afterCommit: (effect: () => void) => void effects.push(effect) } // prettier-ignore
    await mailVerification(work, user)
    return false
  })
  for (const effect of effects) await effect()
  if (!verified)
    throw new AppError('FORBIDDEN', 'Confirm your e-mail address first; the mail is on its way.', {
      extensions: { requires: { emailVerification: true } },
    })
}

export const verifyEmail = operation({
  name: 'verifyEmail',
  requires: isPublic,
  input: z.strictObject({ token: givenToken.describe('From the mail.') }),
  runAs: 'system',
  run: async ({ tx, now }, { token }) => {
    const { id, email } = await ownerOfToken(tx, token, 'emailVerification', now)
    await useToken(tx, token, 'emailVerification', now)
    await tx.user.update({ where: { id }, data: { emailVerifiedAt: now }, select: { id: true } })
    return { id, email }
  },
  audit: ({ id }) => ({ action: 'user.emailVerified', target: id, userId: id }),
})
