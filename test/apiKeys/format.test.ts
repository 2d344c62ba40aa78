import { describe, expect, it } from 'vitest'
import { loadConfig } from '../../src/config.ts'
import { mintApiKey, parseApiKey } from '../../src/modules/apiKeys/format.ts'
import { checksumOf } from './keys.ts'

// eslint-disable-next-line no-secrets/no-secrets -- an alphabet
const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const numberOf = (text: string): bigint => [...text].reduce((n, digit) => n * 62n + BigInt(digits.indexOf(digit)), 0n)

describe('an API key', () => {
  const keys = Array.from({ length: 4000 }, mintApiKey)

  it('begins with mcp_sk_, names itself in public, and ends with the checksum that scanners know', () => {
    for (const { text, publicId, hint } of keys.slice(0, 100)) {
      const whole = text.reveal()
      expect(whole).toMatch(/^mcp_sk_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}$/)
      expect(whole.split('_')[2]).toBe(publicId)
      expect(whole.slice(-6)).toBe(checksumOf(whole.slice(0, -6)))
      expect(whole.endsWith(hint)).toBe(true)
      expect(parseApiKey(whole)?.publicId).toBe(publicId)
    }
  })

  it('holds 256 random bits, each of which is set in half of all keys', () => {
    const secrets = keys.map(({ secret }) => numberOf(secret.reveal()))
    expect(new Set(secrets).size).toBe(keys.length)
    expect(new Set(keys.map(({ publicId }) => publicId)).size).toBe(keys.length)
    // Six standard deviations of a fair coin: one of 256 bits strays so far once in two million runs.
    const limit = 6 * Math.sqrt(keys.length / 4)
    for (let bit = 0n; bit < 256n; bit += 1n) {
      const set = secrets.filter((secret) => (secret >> bit) & 1n).length
      expect(Math.abs(set - keys.length / 2), `bit ${bit}`).toBeLessThan(limit)
    }
    expect(secrets.every((secret) => secret < 1n << 256n)).toBe(true)
  })
})

it.each(['9', '0', '-1', '16', 'ten'])('hashes are never made at the cost %s: the settings refuse it', (cost) => {
  expect(() => loadConfig({ BCRYPT_COST: cost })).toThrow(/BCRYPT_COST/)
})
