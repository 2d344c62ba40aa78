import { z } from 'zod'
import { system } from '../../kernel/actor.ts'
import { operation } from '../../kernel/operation.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { platformOnly } from '../../kernel/rule.ts'
import { keyring, lockKeyring, makeSigningKey, overlapSeconds } from './keyring.ts'

const dayMs = 86_400_000

/**
 * Makes a new signing key. It is published and signs at once; the one before verifies until its last token has expired.
 * The key signs for every organisation, so no organisation's administrator may turn it: the command line and the job do.
 */
export const rotateSigningKey = operation({
  name: 'rotateSigningKey',
  requires: platformOnly,
  input: z.strictObject({ olderThanDays: z.number().int().min(0).default(0) }),
  runAs: 'system',
  prepare: ({ platform }) => makeSigningKey(platform),
  run: async ({ tx, prepared, now, platform, afterCommit }, { olderThanDays }) => {
    await lockKeyring(tx)
    // Another instance may have come first: what was old when this one looked is new now.
    const young = await tx.signingKey.findFirst({
      where: { retiredAt: null, createdAt: { gt: new Date(now.getTime() - olderThanDays * dayMs) } },
      select: { kid: true },
    })
    afterCommit(() => keyring(platform).load())
    if (young && olderThanDays > 0) return { kid: young.kid, rotated: false }
    await tx.signingKey.updateMany({ where: { retiredAt: null }, data: { retiredAt: now } })
    await tx.signingKey.deleteMany({ where: { retiredAt: { lt: new Date(now.getTime() - overlapSeconds * 1000) } } })
    const data = { ...prepared, publicJwk: { ...prepared.publicJwk }, createdAt: now }
    await tx.signingKey.createMany({ data: [data] })
    return { kid: prepared.kid, rotated: true }
  },
  audit: ({ kid, rotated }) => ({ action: rotated ? 'signingKey.rotated' : 'signingKey.kept', target: kid }),
})

const checkEveryMs = 3_600_000

/** The job that rotates the signing key when it has reached its configured age. */
class SigningKeyRotation {
  readonly #platform: Platform
  #timer: NodeJS.Timeout | null = null
  #running: Promise<void> = Promise.resolve()

  constructor(platform: Platform) {
    this.#platform = platform
  }

  start(): void {
    if (this.#timer) return
    const turn = (): void => {
      this.#running = this.run().catch((error: unknown) =>
        this.#platform.log.error({ err: error }, 'the signing key could not be rotated'),
      )
    }
    this.#timer = setInterval(turn, checkEveryMs).unref()
    turn()
  }

  /** One turn of the job. */
  async run(): Promise<void> {
    const { config, clock, database } = this.#platform
    const olderThanDays = config.signingKeyRotationDays
    const createdAt = { lte: new Date(clock().getTime() - olderThanDays * dayMs) }
    const old = await database.read(system(), (tx) =>
      tx.signingKey.findFirst({ where: { retiredAt: null, createdAt }, select: { kid: true } }),
    )
    if (old) await rotateSigningKey.run({ actor: system(), platform: this.#platform }, { olderThanDays })
  }

  async close(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer)
    await this.#running
  }
}

export const signingKeyRotation = resource((platform) => new SigningKeyRotation(platform))
