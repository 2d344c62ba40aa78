import { z } from 'zod'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError, badInput } from '../../kernel/errors.ts'
import type { Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'
import { useEmailCode } from './emailCodes.ts'
import { useRecoveryCode } from './recoveryCodes.ts'
import { useTotp } from './totp.ts'
import { assertionJson, useAssertion } from './webauthn.ts'

// The one door to the kinds of second factors for the modules above.
export { sendEmailCode, useEmailCode } from './emailCodes.ts'
export { issueRecoveryCodes } from './recoveryCodes.ts'
export { confirmTotp, newTotpSecret, sealTotpSecret, totpEnrolment } from './totp.ts'
export {
  assertionJson,
  assertionOptions,
  attestationJson,
  registrationOptions,
  useAssertion,
  verifyRegistration,
} from './webauthn.ts'

/** In the order in which a page should offer them. */
export const secondFactorMethods = z.enum({
  PASSKEY: 'PASSKEY',
  TOTP: 'TOTP',
  EMAIL: 'EMAIL',
  RECOVERY_CODE: 'RECOVERY_CODE',
})
export type SecondFactorMethod = z.infer<typeof secondFactorMethods>

export const givenCode = z.string().min(6).max(64).transform((text) => new Secret(text)) // prettier-ignore

/** What proves a second factor, as every verb that takes one asks for it. */
export const proofFields = {
  method: secondFactorMethods,
  code: givenCode.optional().describe('For TOTP, EMAIL and RECOVERY_CODE.'),
  assertion: assertionJson
    .optional()
    .describe('For PASSKEY: what `navigator.credentials.get()` gave, as its `toJSON()` writes it.'),
}
export type Proof = z.output<z.ZodObject<typeof proofFields>>

/** What a proof is given for: this user, in this session or sign-in and no other. */
export type Occasion = { userId: string; boundTo: string }
type Call = { platform: Platform; now: Date }

export type Verdict = { ok: true; factorId: string | null } | { ok: false; clonedFactorId: string | null }

const verdict = (ok: boolean): Verdict => (ok ? { ok, factorId: null } : { ok, clonedFactorId: null })

function required<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw badInput([{ path: [name], message: 'expected one for this method' }])
  return value
}

/**
 * Takes a proof of a second factor; each is good once. It never throws for a wrong one, so that the transaction commits
 * what was used up: the try, the challenge, the code.
 */
export async function useSecondFactor(tx: Tx, call: Call, occasion: Occasion, proof: Proof): Promise<Verdict> {
  const { userId } = occasion
  switch (proof.method) {
    case 'TOTP': {
      const factorId = await useTotp(tx, call, userId, required(proof.code, 'code'))
      return factorId ? { ok: true, factorId } : verdict(false)
    }
    case 'EMAIL': {
      const factor = await tx.secondFactor.findFirst({
        where: { userId, kind: 'EMAIL', confirmedAt: { not: null } },
        select: { id: true },
      })
      if (!factor || !(await useEmailCode(tx, call, occasion, required(proof.code, 'code')))) return verdict(false)
      await tx.secondFactor.updateMany({ where: { id: factor.id }, data: { lastUsedAt: call.now } })
      return { ok: true, factorId: factor.id }
    }
    case 'RECOVERY_CODE':
      return verdict(await useRecoveryCode(tx, call, userId, required(proof.code, 'code')))
    case 'PASSKEY': {
      const used = await useAssertion(tx, call, occasion, required(proof.assertion, 'assertion'))
      return used.ok ? { ok: true, factorId: used.id } : { ok: false, clonedFactorId: used.cloned?.id ?? null }
    }
  }
}

/** Refuses a proof that lacks the part its method needs, before a try is counted for it. */
export function completeProof(proof: Proof): void {
  if (proof.method === 'PASSKEY') required(proof.assertion, 'assertion')
  else required(proof.code, 'code')
}

/** The methods that a user could prove now. Empty: there is no second factor to ask for. */
export async function methodsOf(tx: Tx, userId: string): Promise<SecondFactorMethod[]> {
  const rows = await tx.$queryRaw<{ method: SecondFactorMethod }[]>`
    SELECT DISTINCT f.kind::text AS method FROM second_factors f WHERE f.user_id = ${userId}::uuid AND f.confirmed_at IS NOT NULL
    UNION ALL
    SELECT 'RECOVERY_CODE' WHERE EXISTS (SELECT FROM recovery_codes r WHERE r.user_id = ${userId}::uuid AND r.used_at IS NULL)
      AND EXISTS (SELECT FROM second_factors f WHERE f.user_id = ${userId}::uuid AND f.confirmed_at IS NOT NULL)`
  return secondFactorMethods.options.filter((method) => rows.some((row) => row.method === method))
}

const windowSeconds = 900
/** Tries in a quarter of an hour: enough for thick fingers, and hopeless against a million codes. */
const limits = { user: 10, session: 5 } as const

/** Where tries are counted. At sign-in by user; in a session that stands apart from that, so that no stranger can fill it. */
export type TrySubject = { kind: keyof typeof limits; id: string }

const keyOf = ({ kind, id }: TrySubject): string => `${kind}:${id}`

/** Counts a try before it is judged, so that tries that race are counted too. Null: it may be judged. */
export async function countTry(tx: Tx, subject: TrySubject, now: Date): Promise<AppError | null> {
  const windowEndsAt = new Date(now.getTime() + windowSeconds * 1000)
  const [row] = await tx.$queryRaw<{ tries: number; ends: Date }[]>`
    INSERT INTO second_factor_tries AS t (subject, tries, window_ends_at) VALUES (${keyOf(subject)}, 1, ${windowEndsAt})
    ON CONFLICT (subject) DO UPDATE SET
      tries = CASE WHEN t.window_ends_at <= ${now} THEN 1 ELSE t.tries + 1 END,
      window_ends_at = CASE WHEN t.window_ends_at <= ${now} THEN ${windowEndsAt} ELSE t.window_ends_at END
    RETURNING tries, window_ends_at AS ends`
  if (!row || row.tries <= limits[subject.kind]) return null
  const retryAfterSeconds = Math.max(1, Math.ceil((row.ends.getTime() - now.getTime()) / 1000))
  return new AppError('RATE_LIMITED', 'Too many wrong tries. Wait before the next one.', { retryAfterSeconds })
}

/** A success ends the count. */
export async function forgetTries(tx: Tx, subject: TrySubject, now: Date): Promise<void> {
  await tx.secondFactorTry.deleteMany({ where: { subject: keyOf(subject) } })
  // Counts that ran out go along. Locked rows are left to whoever holds them.
  await tx.$executeRaw`DELETE FROM second_factor_tries WHERE subject IN (
    SELECT subject FROM second_factor_tries WHERE window_ends_at < ${now} ORDER BY subject LIMIT 100 FOR UPDATE SKIP LOCKED)`
}

export const wrongProof = (): AppError =>
  new AppError('INVALID_CREDENTIALS', 'This second factor was not accepted. Each code is good once, and not for long.')
