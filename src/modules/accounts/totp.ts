import { Secret as OtpSecret, TOTP } from 'otpauth'
import { renderSVG } from 'uqr'
import type { Tx } from '../../kernel/database/door.ts'
import type { Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'

const periodSeconds = 30
/** Steps before and after now that a code may be of: clocks differ, and people type slowly (RFC 6238, section 5.2). */
const window = 1

// SHA-1 and six digits, since authenticator apps ignore or mistake anything else; HMAC does not need a collision-free hash.
const settings = { algorithm: 'SHA1', digits: 6, period: periodSeconds } as const

const boundTo = (userId: string, factorId: string): [string, string] => [userId, factorId]

export const sealTotpSecret = (platform: Platform, userId: string, factorId: string, secret: Secret): string =>
  platform.vault.seal('mfaSecret', boundTo(userId, factorId), secret)

/** A new secret of 160 bits (RFC 4226, section 4), in base 32. */
export const newTotpSecret = (): Secret => new Secret(new OtpSecret({ size: 20 }).base32)

/** What an authenticator app reads: the `otpauth://` address, and the same as a QR code (SVG, as text). */
export function totpEnrolment(platform: Platform, secret: Secret, account: string): { uri: Secret; qrCode: Secret } {
  const issuer = `MCP Platform (${new URL(platform.publicUrl).hostname})`
  const uri = new TOTP({ ...settings, issuer, label: account, secret: secret.reveal() }).toString()
  return { uri: new Secret(uri), qrCode: new Secret(renderSVG(uri, { border: 2 })) }
}

/** The time step that a code is of, or null when it is of none within the window. */
export function totpStep(secret: Secret, code: Secret, now: Date): number | null {
  const totp = new TOTP({ ...settings, secret: secret.reveal() })
  const timestamp = now.getTime()
  const delta = totp.validate({ token: code.reveal().replace(/\s/g, ''), timestamp, window })
  return delta === null ? null : totp.counter({ timestamp }) + delta
}

/**
 * Takes a code of one of the user's authenticator apps. A code is good once (RFC 6238, section 5.2): of two uses of a
 * step, at whatever instances, one finds the step taken.
 */
export async function useTotp(
  tx: Tx,
  { platform, now }: { platform: Platform; now: Date },
  userId: string,
  code: Secret,
): Promise<string | null> {
  const factors = await tx.secondFactor.findMany({
    where: { userId, kind: 'TOTP', confirmedAt: { not: null } },
    select: { id: true, sealedSecret: true },
  })
  for (const { id, sealedSecret } of factors) {
    const secret = platform.vault.open('mfaSecret', boundTo(userId, id), sealedSecret ?? '')
    const step = totpStep(secret, code, now)
    if (step !== null && (await takeStep(tx, id, step, now))) return id
  }
  return null
}

async function takeStep(tx: Tx, id: string, step: number, now: Date): Promise<boolean> {
  const { count } = await tx.secondFactor.updateMany({
    where: { id, lastStep: { lt: step } },
    data: { lastStep: step, lastUsedAt: now },
  })
  return count === 1
}

/** Turns a pending app into a factor, by its first code. */
export async function confirmTotp(
  tx: Tx,
  { platform, now }: { platform: Platform; now: Date },
  factor: { id: string; userId: string; sealedSecret: string | null },
  code: Secret,
): Promise<boolean> {
  const secret = platform.vault.open('mfaSecret', boundTo(factor.userId, factor.id), factor.sealedSecret ?? '')
  const step = totpStep(secret, code, now)
  if (step === null) return false
  const { count } = await tx.secondFactor.updateMany({
    where: { id: factor.id, confirmedAt: null, lastStep: { lt: step } },
    data: { confirmedAt: now, lastStep: step, lastUsedAt: now },
  })
  return count === 1
}
