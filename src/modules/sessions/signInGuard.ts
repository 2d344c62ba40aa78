import { createHash } from 'node:crypto'
import { system } from '../../kernel/actor.ts'
import { appendAudit } from '../../kernel/audit.ts'
import { AppError } from '../../kernel/errors.ts'
import { lockout, type Attempt } from '../../kernel/lockout.ts'
import type { Call } from '../../kernel/operation.ts'
import { sourceOf } from '../../kernel/source.ts'

const hourSeconds = 3600
/** An address that signed in to an account within so long is its owner's. */
const knownSourceDays = 90

// Both say the same of accounts that exist and of those that do not.
const accountLocked = {
  code: 'ACCOUNT_LOCKED',
  message: 'Too many failed sign-ins. Try again later; sessions that stand keep working.',
} as const

const bySourceAndAccount = lockout('signIn:pair', (config) => ({
  freeFailures: config.signInFailuresPerSourceAndAccount,
  firstLockSeconds: config.firstLockSeconds,
  longestLockSeconds: config.longestLockSeconds,
  forgetSeconds: hourSeconds,
  onSuccess: 'clear',
  ...accountLocked,
}))

const bySource = lockout('signIn:source', (config) => ({
  freeFailures: config.signInFailuresPerSource,
  firstLockSeconds: config.firstLockSeconds,
  longestLockSeconds: config.longestLockSeconds,
  forgetSeconds: hourSeconds,
  onSuccess: 'giveBack',
  code: 'RATE_LIMITED',
  message: 'Too many failed sign-ins from your address. Try again later.',
}))

/** Slows guesses that come from everywhere at once; sources that the owner used before are exempt from it. */
const byAccount = lockout('signIn:account', (config) => ({
  freeFailures: config.signInFailuresPerAccount,
  firstLockSeconds: config.firstLockSeconds,
  longestLockSeconds: config.longestLockSeconds,
  forgetSeconds: hourSeconds,
  onSuccess: 'giveBack',
  ...accountLocked,
}))

async function isKnownSource({ platform, actor, now }: Call, email: string, source: string): Promise<boolean> {
  const since = new Date(now.getTime() - knownSourceDays * 86_400_000)
  const sessions = await platform.database.read(system(actor.origin), (tx) =>
    tx.session.findMany({
      where: { user: { email }, createdAt: { gt: since } },
      distinct: ['ip'],
      select: { ip: true },
      take: 1000,
    }),
  )
  return sessions.some(({ ip }) => ip !== null && sourceOf({ ip }) === source)
}

/** In the trail of each organisation of the account; of the platform where there is no such account. */
async function recordLock(
  { platform, actor, now }: Call,
  email: string,
  scope: string,
  seconds: number,
): Promise<void> {
  const as = system(actor.origin)
  await platform.database.transact(as, async (tx) => {
    const memberships = await tx.membership.findMany({
      where: { user: { email }, deactivatedAt: null },
      select: { orgId: true, userId: true },
      take: 20,
    })
    const abouts = memberships.length ? memberships : [{}]
    const detail = { scope, seconds, source: sourceOf(actor.origin) }
    for (const about of abouts) await appendAudit(tx, as, { action: 'signIn.locked', detail, ...about }, 'denied', now)
  })
}

async function begin(call: Call, email: string, taken: Map<string, Attempt>): Promise<void> {
  const { platform, actor } = call
  const source = sourceOf(actor.origin)
  const account = createHash('sha256').update(email).digest('base64url')
  taken.set('source', await bySource(platform).begin(source))
  taken.set('source and account', await bySourceAndAccount(platform).begin(`${account}:${source}`))
  try {
    taken.set('account', await byAccount(platform).begin(account))
  } catch (error) {
    if (!(error instanceof AppError) || !(await isKnownSource(call, email, source))) throw error
  }
}

/**
 * Runs one check of a password under the locks. Each check counts before it begins, whichever request, alias or batch it
 * is part of. Answers what the check answers; null is a failure.
 */
export async function guardSignIn<T>(call: Call, email: string, check: () => Promise<T | null>): Promise<T | null> {
  const attempts = new Map<string, Attempt>()
  let verdict: 'none' | 'failed' | 'succeeded' = 'none'
  try {
    await begin(call, email, attempts)
    const result = await check()
    verdict = result === null ? 'failed' : 'succeeded'
    return result
  } finally {
    for (const [scope, attempt] of attempts) {
      if (verdict === 'succeeded') await attempt.succeeded()
      else if (verdict === 'none') await attempt.withdraw()
      else {
        const seconds = attempt.failed()
        if (seconds !== null) await recordLock(call, email, scope, seconds)
      }
    }
  }
}
