import {
  calculateJwkThumbprint,
  exportJWK,
  exportPKCS8,
  generateKeyPair,
  importJWK,
  importPKCS8,
  type CryptoKey,
  type JWK,
} from 'jose'
import { LRUCache } from 'lru-cache'
import { setTimeout as wait } from 'node:timers/promises'
import { z } from 'zod'
import { system } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'

export const signingAlgorithm = 'RS256'
/** No access token lives longer, whatever is configured. */
export const longestTokenSeconds = 86_400
/** How soon an instance that signs learns of a key that another one made. Until then it signs with the one before. */
const signingReloadSeconds = 60
/** A retired key verifies until the last token under it has expired: the longest life, late signers, and clocks that differ. */
export const overlapSeconds = longestTokenSeconds + signingReloadSeconds + 300
// A name that nobody knows costs one look at the database, and such looks are at least this far apart.
const unknownKidSpacingMs = 250
const thumbprint = /^[\w-]{43}$/

type SigningKey = { kid: string; privateKey: CryptoKey }
const publicJwk = z.object({ kty: z.literal('RSA'), n: z.string(), e: z.string(), kid: z.string() })

/** The public half as it is published: nothing but what RFC 7517 needs to verify. */
export type PublicJwk = z.infer<typeof publicJwk> & { use: 'sig'; alg: typeof signingAlgorithm }

export type NewSigningKey = { kid: string; publicJwk: JWK; sealedPrivate: string }

export async function makeSigningKey({ vault }: Platform): Promise<NewSigningKey> {
  const { publicKey, privateKey } = await generateKeyPair(signingAlgorithm, { modulusLength: 2048, extractable: true })
  const jwk = await exportJWK(publicKey)
  const kid = await calculateJwkThumbprint(jwk)
  const sealedPrivate = vault.seal('signingKey', [kid], new Secret(await exportPKCS8(privateKey)))
  return { kid, publicJwk: { ...jwk, kid }, sealedPrivate }
}

const keyringLock = 4_101_968_211
/** Takes the making of keys one instance at a time; held to the end of the transaction. */
export const lockKeyring = (tx: Tx): Promise<number> => tx.$executeRaw`SELECT pg_advisory_xact_lock(${keyringLock})`

const newest = { orderBy: { createdAt: 'desc' } } as const

/** The signing keys: made by the platform, private halves sealed at rest, public halves published. */
export class Keyring {
  readonly #platform: Platform
  #signing: SigningKey | null = null
  #verifying = new Map<string, CryptoKey>()
  #published: PublicJwk[] = []
  #loading: Promise<void> | null = null
  #loadedAt = 0
  #nextLookUp = 0
  readonly #unknown = new LRUCache<string, true>({ max: 1000, ttl: 10_000 })

  constructor(platform: Platform) {
    this.#platform = platform
  }

  async #rows() {
    const { database } = this.#platform
    const known = await database.read(system(), (tx) => tx.signingKey.findMany(newest))
    if (known.some((key) => key.retiredAt === null)) return known
    const made = await makeSigningKey(this.#platform)
    return database.transact(system(), async (tx) => {
      await lockKeyring(tx)
      const again = await tx.signingKey.findMany(newest)
      if (again.some((key) => key.retiredAt === null)) return again
      const createdAt = this.#platform.clock()
      return [await tx.signingKey.create({ data: { ...made, publicJwk: { ...made.publicJwk }, createdAt } }), ...again]
    })
  }

  async #load(): Promise<void> {
    const { vault, clock } = this.#platform
    const now = clock().getTime()
    const rows = (await this.#rows()).filter(
      ({ retiredAt }) => retiredAt === null || retiredAt.getTime() + overlapSeconds * 1000 > now,
    )
    const published = rows.map((row): PublicJwk => ({
      ...publicJwk.parse(row.publicJwk),
      use: 'sig',
      alg: signingAlgorithm,
    }))
    const verifying = await Promise.all(
      published.map(async (jwk) => {
        const key = this.#verifying.get(jwk.kid) ?? ((await importJWK(jwk, signingAlgorithm)) as CryptoKey)
        return [jwk.kid, key] as const
      }),
    )
    const current = rows.find((row) => row.retiredAt === null)
    if (!current) throw new Error('There is no signing key.')
    if (this.#signing?.kid !== current.kid) {
      const pem = vault.open('signingKey', [current.kid], current.sealedPrivate)
      this.#signing = { kid: current.kid, privateKey: await importPKCS8(pem.reveal(), signingAlgorithm) }
    }
    this.#verifying = new Map(verifying)
    this.#published = published
    this.#loadedAt = now
  }

  /** Loads; callers that come meanwhile share the load. */
  load(): Promise<void> {
    this.#loading ??= this.#load().finally(() => (this.#loading = null))
    return this.#loading
  }

  async #fresh(): Promise<void> {
    const age = this.#platform.clock().getTime() - this.#loadedAt
    if (!this.#signing || Math.abs(age) > signingReloadSeconds * 1000) await this.load()
  }

  async signingKey(): Promise<SigningKey> {
    await this.#fresh()
    if (!this.#signing) throw new Error('There is no signing key.')
    return this.#signing
  }

  /**
   * The key that a token names. A name that is not known may be of a key that another instance made a moment ago, so the
   * request waits for a look at the database rather than failing.
   */
  async verifyingKey(kid: string): Promise<CryptoKey | null> {
    const known = this.#verifying.get(kid)
    if (known) return known
    if (!thumbprint.test(kid) || this.#unknown.has(kid)) return null
    await this.#lookAgain()
    const found = this.#verifying.get(kid) ?? null
    if (!found) this.#unknown.set(kid, true)
    return found
  }

  /** A load that begins after this call; calls that come while one is due share it. */
  #due: Promise<void> | null = null
  #lookAgain(): Promise<void> {
    this.#due ??= (async () => {
      const pause = this.#nextLookUp - performance.now()
      if (pause > 0) await wait(pause)
      // A load that is under way may have read before the key was made.
      await this.#loading?.catch(() => {})
      this.#due = null
      this.#nextLookUp = performance.now() + unknownKidSpacingMs
      await this.load()
    })()
    return this.#due
  }

  async jwks(): Promise<{ keys: PublicJwk[] }> {
    await this.#fresh()
    return { keys: this.#published }
  }
}

export const keyring = resource((platform) => new Keyring(platform))
