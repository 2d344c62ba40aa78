import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto'
import { Secret } from './secret.ts'

/** The data categories; each is encrypted under data keys of its own. */
export const dataCategories = ['serviceToken', 'signingKey', 'mfaSecret', 'mail'] as const
export type DataCategory = (typeof dataCategories)[number]

const nonceBytes = 12
const tagBytes = 16

function seal(key: Buffer, plaintext: Buffer, context: string): Buffer {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(context))
  return Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()])
}

function open(key: Buffer, sealed: Buffer, context: string): Buffer {
  const tag = sealed.subarray(sealed.length - tagBytes)
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, nonceBytes), { authTagLength: tagBytes })
  decipher.setAAD(Buffer.from(context)).setAuthTag(tag)
  return Buffer.concat([decipher.update(sealed.subarray(nonceBytes, sealed.length - tagBytes)), decipher.final()])
}

/** The key-encryption key. It wraps data keys and derives database passwords; it encrypts no data itself. */
export class MasterKey {
  readonly #key: Buffer

  constructor(base64: string) {
    this.#key = Buffer.from(base64, 'base64')
    if (this.#key.length !== 32) throw new TypeError('The master key must be 32 bytes in base64.')
  }

  static generate(): string {
    return randomBytes(32).toString('base64')
  }

  /** A key for one purpose (HKDF, RFC 5869). */
  derive(purpose: string): Buffer {
    return Buffer.from(hkdfSync('sha256', this.#key, '', purpose, 32))
  }

  wrap(dataKey: Buffer, context: string): Buffer {
    return seal(this.derive('wrap'), dataKey, context)
  }

  unwrap(wrapped: Buffer, context: string): Buffer {
    return open(this.derive('wrap'), wrapped, context)
  }
}

/** A data key as it is stored: wrapped by the master key (envelope encryption). */
export type WrappedKey = { category: DataCategory; version: number; wrapped: Uint8Array }

const wrapContext = ({ category, version }: Pick<WrappedKey, 'category' | 'version'>): string =>
  `${category}:${version}`

export const newWrappedKey = (master: MasterKey, category: DataCategory, version: number): WrappedKey => ({
  category,
  version,
  wrapped: Uint8Array.from(master.wrap(randomBytes(32), wrapContext({ category, version }))),
})

/**
 * AES-256-GCM under a data key of the value's category, bound by additional authenticated data to what it belongs to:
 * a ciphertext moved to another row does not open. Sealed form: `v<key version>.<base64url of nonce | ciphertext | tag>`.
 */
export class Vault {
  readonly #keys = new Map<string, Buffer>()
  readonly #current = new Map<DataCategory, number>()

  /** Throws where a key was wrapped by another master key. */
  constructor(master: MasterKey, stored: readonly WrappedKey[]) {
    for (const key of stored) {
      this.#keys.set(wrapContext(key), master.unwrap(Buffer.from(key.wrapped), wrapContext(key)))
      this.#current.set(key.category, Math.max(key.version, this.#current.get(key.category) ?? 0))
    }
  }

  seal(category: DataCategory, boundTo: readonly string[], plaintext: Secret): string {
    const version = this.#current.get(category)
    const key = version === undefined ? undefined : this.#keys.get(wrapContext({ category, version }))
    if (!key) throw new Error(`The vault has no data key for ${category}.`)
    return `v${version}.${seal(key, Buffer.from(plaintext.reveal()), boundTo.join('\u0000')).toString('base64url')}`
  }

  /** Throws when the text was altered, belongs elsewhere, or its key version is unknown. */
  open(category: DataCategory, boundTo: readonly string[], sealed: string): Secret {
    const [, version, body] = /^v(\d+)\.([\w-]+)$/.exec(sealed) ?? []
    const key = this.#keys.get(wrapContext({ category, version: Number(version) }))
    if (!key || !body) throw new Error('The sealed value has no known key version.')
    return new Secret(open(key, Buffer.from(body, 'base64url'), boundTo.join('\u0000')).toString())
  }

  /**
   * HMAC-SHA-256 of a code that is only ever compared, bound like a sealed value: without the master key a stolen table
   * cannot be searched, however short the codes are. The first is of the current key version; a stored one may match any.
   */
  macs(category: DataCategory, boundTo: readonly string[], code: Secret): [string, ...string[]] {
    const current = this.#current.get(category) ?? 0
    const of = (version: number): string => {
      const dataKey = this.#keys.get(wrapContext({ category, version }))
      if (!dataKey) throw new Error(`The vault has no data key for ${category}.`)
      // A key of its own purpose (RFC 5869), so that no key both encrypts and authenticates.
      const key = Buffer.from(hkdfSync('sha256', dataKey, '', 'mac', 32))
      const text = [...boundTo, code.reveal()].join('\u0000')
      return `v${version}.${createHmac('sha256', key).update(text).digest('base64url')}`
    }
    const earlier = Array.from({ length: Math.max(0, current - 1) }, (_, i) => current - 1 - i)
    const known = earlier.filter((version) => this.#keys.has(wrapContext({ category, version })))
    return [of(current), ...known.map(of)]
  }
}
