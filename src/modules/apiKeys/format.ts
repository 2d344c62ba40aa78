import { randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { Secret } from '../../kernel/secret.ts'

// eslint-disable-next-line no-secrets/no-secrets -- an alphabet
const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

function base62(bytes: Uint8Array, length: number): string {
  let rest = BigInt(`0x${Buffer.from(bytes).toString('hex')}`)
  let text = ''
  for (let i = 0; i < length; i += 1) {
    text = (alphabet[Number(rest % 62n)] ?? '') + text
    rest /= 62n
  }
  return text
}

const checksumOf = (text: string): string => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(crc32(text))
  return base62(bytes, 6)
}

/** What a scanner looks for. The last six characters are the CRC-32 of all that stands before them, in base 62. */
export const apiKeyPattern = /^mcp_sk_([0-9A-Za-z]{16})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})$/

export type ApiKeyParts = { publicId: string; secret: Secret }

/** A new key: `mcp_sk_<public id>_<256-bit secret><checksum>`. */
export function mintApiKey(): ApiKeyParts & { text: Secret; hint: string } {
  const publicId = base62(randomBytes(12), 16)
  const secret = base62(randomBytes(32), 43)
  const body = `mcp_sk_${publicId}_${secret}`
  const text = body + checksumOf(body)
  return { publicId, secret: new Secret(secret), text: new Secret(text), hint: text.slice(-4) }
}

/** Null for anything that is not a whole key: typos and made-up keys cost nothing further. */
export function parseApiKey(text: string): ApiKeyParts | null {
  const [, publicId, secret, checksum] = apiKeyPattern.exec(text) ?? []
  if (!publicId || !secret || checksumOf(`mcp_sk_${publicId}_${secret}`) !== checksum) return null
  return { publicId, secret: new Secret(secret) }
}
