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
import { z } from 'zod'
import { system } from '../../kernel/actor.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'

export const signingAlgorithm = 'RS256'

type SigningKey = { kid: string; privateKey: CryptoKey }
const publicJwk = z.object({ kty: z.literal('RSA'), n: z.string(), e: z.string(), kid: z.string() })

/** The public half as it is published: nothing but what RFC 7517 needs to verify. */
export type PublicJwk = z.infer<typeof publicJwk> & { use: 'sig'; alg: typeof signingAlgorithm }

// Takes the creation of the first key one instance at a time.
const creationLock = 4_101_968_211

async function makeKey(platform: Platform): Promise<{ kid: string; publicJwk: JWK; sealedPrivate: string }> {
  const { publicKey, privateKey } = await generateKeyPair(signingAlgorithm, { modulusLength: 2048, extractable: true })
  const jwk = await exportJWK(publicKey)
  const kid = await calculateJwkThumbprint(jwk)
  const sealedPrivate = platform.vault.seal('signingKey', [kid], new Secret(await exportPKCS8(privateKey)))
  return { kid, publicJwk: { ...jwk, kid }, sealedPrivate }
}

/** The signing keys: made by the platform, private halves sealed at rest, public halves published. */
export class Keyring {
  readonly #platform: Platform
  #signing: SigningKey | null = null
  #verifying = new Map<string, CryptoKey>()
  #published: PublicJwk[] = []
  #loading: Promise<void> | null = null
  #loadedAt = 0

  constructor(platform: Platform) {
    this.#platform = platform
  }

  async #load(): Promise<void> {
    const { database, vault } = this.#platform
    const made = await makeKey(this.#platform)
    const rows = await database.transact(system(), async (tx) => {
      await tx.$executeRaw`SELECT pg_advisory_xact_lock(${creationLock})`
      const known = await tx.signingKey.findMany({ orderBy: { createdAt: 'desc' } })
      if (known.some((key) => key.retiredAt === null)) return known
      return [await tx.signingKey.create({ data: { ...made, publicJwk: { ...made.publicJwk } } }), ...known]
    })
    const published = rows.map((row): PublicJwk => ({
      ...publicJwk.parse(row.publicJwk),
      use: 'sig',
      alg: signingAlgorithm,
    }))
    const verifying = await Promise.all(
      published.map(async (jwk) => [jwk.kid, (await importJWK(jwk, signingAlgorithm)) as CryptoKey] as const),
    )
    const current = rows.find((row) => row.retiredAt === null)
    if (!current) throw new Error('There is no signing key.')
    const pem = vault.open('signingKey', [current.kid], current.sealedPrivate)
    this.#signing = { kid: current.kid, privateKey: await importPKCS8(pem.reveal(), signingAlgorithm) }
    this.#verifying = new Map(verifying)
    this.#published = published
    this.#loadedAt = this.#platform.clock().getTime()
  }

  /** Loads once, or again when asked to; callers that come meanwhile share the load. */
  load(): Promise<void> {
    this.#loading ??= this.#load().finally(() => (this.#loading = null))
    return this.#loading
  }

  async signingKey(): Promise<SigningKey> {
    if (!this.#signing) await this.load()
    if (!this.#signing) throw new Error('There is no signing key.')
    return this.#signing
  }

  /** The key that a token names. An unknown name may be a key that another instance made: looked up again, at most every ten seconds. */
  async verifyingKey(kid: string): Promise<CryptoKey | null> {
    const known = this.#verifying.get(kid)
    if (known) return known
    if (this.#platform.clock().getTime() - this.#loadedAt < 10_000 && this.#signing) return null
    await this.load()
    return this.#verifying.get(kid) ?? null
  }

  async jwks(): Promise<{ keys: PublicJwk[] }> {
    await this.signingKey()
    return { keys: this.#published }
  }
}

export const keyring = resource((platform) => new Keyring(platform))
