import { randomInt } from 'node:crypto'
import type { Tx } from '../../kernel/database/door.ts'
import type { Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'

export const recoveryCodeCount = 10

// Crockford's base 32: no I, L, O or U, so that a code copied by hand is read back as it was meant.
// eslint-disable-next-line no-secrets/no-secrets -- an alphabet
const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const codeLength = 16

const newCode = (): string => Array.from({ length: codeLength }, () => alphabet[randomInt(alphabet.length)]).join('')
const printed = (code: string): string => code.match(/.{4}/g)?.join('-') ?? code
const normal = (code: string): string => code.toUpperCase().replace(/[\s-]/g, '').replace(/O/g, '0').replace(/[IL]/g, '1') // prettier-ignore

// A code holds 80 random bits, so a slow hash would add nothing: no list can be tried against it. The keyed hash costs
// one microsecond, makes a stolen table useless without the master key, and lets one UPDATE find and burn the code.
const hashes = (platform: Platform, userId: string, code: string): string[] =>
  platform.vault.macs('mfaSecret', ['recoveryCode', userId], new Secret(code))

/** Ten new codes; those given before are void. */
export async function issueRecoveryCodes(
  tx: Tx,
  { platform, now }: { platform: Platform; now: Date },
  userId: string,
): Promise<Secret[]> {
  const codes = Array.from({ length: recoveryCodeCount }, newCode)
  await tx.recoveryCode.deleteMany({ where: { userId } })
  await tx.recoveryCode.createMany({
    data: codes.map((code) => ({ userId, codeHash: hashes(platform, userId, code)[0] ?? '', createdAt: now })),
  })
  return codes.map((code) => new Secret(printed(code)))
}

/** Burns a code. Of two uses at the same moment one finds it burnt. */
export async function useRecoveryCode(
  tx: Tx,
  { platform, now }: { platform: Platform; now: Date },
  userId: string,
  code: Secret,
): Promise<boolean> {
  const { count } = await tx.recoveryCode.updateMany({
    where: { userId, codeHash: { in: hashes(platform, userId, normal(code.reveal())) }, usedAt: null },
    data: { usedAt: now },
  })
  return count === 1
}
