import { z } from 'zod'
import { isMember, system, type Member } from '../../kernel/actor.ts'
import { AppError } from '../../kernel/errors.ts'
import { lockout } from '../../kernel/lockout.ts'
import { mailer } from '../../kernel/mail.ts'
import { operation, type Call } from '../../kernel/operation.ts'
import type { Platform } from '../../kernel/platform.ts'
import { isPublic, scope } from '../../kernel/rule.ts'
import type { Secret } from '../../kernel/secret.ts'
import { tenantOf } from '../../kernel/source.ts'
import { emailAddress, givenPassword, newPassword } from './operations.ts'
import { assertStrong } from './passwordStrength.ts'
import { givenToken, mailToken, ownerOfToken, useToken } from './verificationTokens.ts'

const changed = ({ publicUrl }: Platform) => ({
  subject: 'Your password was changed',
  text: `The password of your account on ${publicUrl} was changed, and your other sessions were ended.\n\nIf it was not you, reset it at once and tell your administrator.\n`,
})

/**
 * Makes a stored hash as strong as the configured cost asks, now that the password is known. A sign-in never fails for it,
 * and a password that changed meanwhile is left alone.
 */
export async function strengthenHash(
  { platform, actor }: Pick<Call, 'platform' | 'actor'>,
  userId: string,
  password: Secret,
  hash: string,
): Promise<void> {
  if (!platform.hasher.isWeak(hash)) return
  try {
    const passwordHash = await platform.hasher.hash(password, tenantOf(actor))
    await platform.database.transact(system(), (tx) =>
      tx.user.updateMany({ where: { id: userId, passwordHash: hash }, data: { passwordHash } }),
    )
  } catch (error) {
    platform.log.error({ err: error }, 'a password hash could not be strengthened')
  }
}

// By session, so that a stolen token cannot guess for long, and cannot lock its owner out of any other session.
const guesses = lockout('password:current', (config) => ({
  freeFailures: config.signInFailuresPerSourceAndAccount,
  firstLockSeconds: config.firstLockSeconds,
  longestLockSeconds: config.longestLockSeconds,
  forgetSeconds: 3600,
  onSuccess: 'clear',
  code: 'RATE_LIMITED',
  message: 'Too many wrong passwords. Try again later.',
}))

function person({ actor }: Call): Member {
  if (isMember(actor) && actor.kind === 'user') return actor
  throw new AppError('FORBIDDEN', 'Only a person who signed in can do this, not an API key.')
}

async function checkCurrent(call: Call, current: Secret, next: Secret) {
  const { platform } = call
  const { userId, credentialId } = person(call)
  const user = await platform.database.read(system(), (tx) =>
    tx.user.findUniqueOrThrow({ where: { id: userId }, select: { email: true, name: true, passwordHash: true } }),
  )
  const attempt = await guesses(platform).begin(credentialId)
  if (!(await platform.hasher.matches(current, user.passwordHash, tenantOf(call.actor)))) {
    attempt.failed()
    throw new AppError('INVALID_CREDENTIALS', 'The current password is wrong.')
  }
  await attempt.succeeded()
  await assertStrong(next, [user.email, user.name], ['newPassword'])
  return { ...user, newHash: await platform.hasher.hash(next, tenantOf(call.actor)) }
}

/** Ends every other session of the account, in all organisations, and every sign-in that waits for its second factor. */
export const changePassword = operation({
  name: 'changePassword',
  requires: scope('user:write'),
  input: z.strictObject({ currentPassword: givenPassword, newPassword }),
  prepare: (call, { currentPassword, newPassword: next }) => checkCurrent(call, currentPassword, next),
  run: async (work, _input) => {
    const { tx, prepared, now, platform, afterCommit } = work
    const { userId, credentialId } = person(work)
    const [row] = await tx.$queryRaw<{ changed: boolean }[]>`
      SELECT app.change_own_password(${prepared.passwordHash}, ${prepared.newHash}, ${credentialId}::uuid, ${now}) AS changed`
    if (!row?.changed) throw new AppError('CONFLICT', 'The password was changed elsewhere at the same moment.')
    await mailer(platform).send(work, { to: prepared.email, ...changed(platform) })
    afterCommit(() =>
      platform.database
        .transact(system(), (again) =>
          again.signInChallenge.updateMany({ where: { userId, usedAt: null }, data: { usedAt: now } }),
        )
        .then(() => {}),
    )
    return { id: userId }
  },
  audit: ({ id }) => ({ action: 'password.changed', target: id }),
})

/** Answers the same, after the same work, whether or not there is such an account. */
export const requestPasswordReset = operation({
  name: 'requestPasswordReset',
  requires: isPublic,
  input: z.strictObject({ email: emailAddress }),
  runAs: 'system',
  run: async (work, { email }) => {
    const user = await work.tx.user.findFirst({ where: { email, disabledAt: null }, select: { id: true } })
    await mailToken(work, {
      purpose: 'passwordReset',
      email,
      userId: user?.id ?? null,
      page: 'reset-password',
      letter: {
        subject: 'Choose a new password',
        text: (token) =>
          `Somebody, we hope you, asked for a new password on ${work.platform.publicUrl}.\n\nChoose one within 30 minutes:\n\n${token}\n\nIf it was not you, do nothing: your password stays as it is.\n`,
      },
    })
    return { accepted: true, userId: user?.id ?? null }
  },
  audit: ({ userId }) => ({ action: 'password.resetRequested', ...(userId ? { userId, target: userId } : {}) }),
})

/** Proves the mailbox, so it verifies the address too. It opens no session: a second factor is still asked at sign-in. */
export const resetPassword = operation({
  name: 'resetPassword',
  requires: isPublic,
  input: z.strictObject({
    token: givenToken.describe('From the mail; good once, for 30 minutes.'),
    password: newPassword,
  }),
  runAs: 'system',
  prepare: async ({ platform, actor, now }, { token, password }) => {
    const user = await platform.database.read(system(), (tx) => ownerOfToken(tx, token, 'passwordReset', now))
    await assertStrong(password, [user.email, user.name])
    return { user, passwordHash: await platform.hasher.hash(password, tenantOf(actor)) }
  },
  run: async (work, { token }) => {
    const { tx, now, platform, prepared } = work
    const { id, email } = prepared.user
    await useToken(tx, token, 'passwordReset', now)
    const { passwordHash } = prepared
    await tx.user.update({ where: { id }, data: { passwordHash, emailVerifiedAt: now }, select: { id: true } })
    await tx.session.updateMany({ where: { userId: id, revokedAt: null }, data: { revokedAt: now } })
    await tx.signInChallenge.updateMany({ where: { userId: id, usedAt: null }, data: { usedAt: now } })
    await mailer(platform).send(work, { to: email, ...changed(platform) })
    return { id }
  },
  audit: ({ id }) => ({ action: 'password.reset', target: id, userId: id }),
})
