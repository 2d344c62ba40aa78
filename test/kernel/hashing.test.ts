import bcrypt from 'bcrypt'
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { loadConfig } from '../../src/config.ts'
import { Hasher } from '../../src/kernel/hashing.ts'
import { Secret } from '../../src/kernel/secret.ts'

const hasher = new Hasher(4)
const matches = (given: string, hash: string): Promise<boolean> => hasher.matches(new Secret(given), hash, 'anybody')

describe('a stored hash', () => {
  it('matches its secret alone, also where bcrypt would read no further', async () => {
    const long = 'x'.repeat(72)
    const hash = await hasher.hash(new Secret(`${long}a`), 'anybody')
    expect(await matches(`${long}a`, hash)).toBe(true)
    expect(await matches(`${long}b`, hash)).toBe(false)
    expect(await matches(long, hash)).toBe(false)
    const cut = await hasher.hash(new Secret('before\u0000after'), 'anybody')
    expect(await matches('before\u0000other', cut)).toBe(false)
  })

  it('differs each time', async () => {
    const secret = new Secret('the same')
    expect(await hasher.hash(secret, 'anybody')).not.toBe(await hasher.hash(secret, 'anybody'))
  })

  it('is of no bare digest, so that digests which leaked elsewhere cannot be tried against it', async () => {
    const hash = await hasher.hash(new Secret('shared password'), 'anybody')
    for (const algorithm of ['md5', 'sha1', 'sha256', 'sha512'])
      for (const encoding of ['hex', 'base64'] as const) {
        const digest = createHash(algorithm).update('shared password').digest(encoding)
        expect(await bcrypt.compare(digest, hash), `${algorithm} in ${encoding}`).toBe(false)
      }
    expect(await bcrypt.compare('shared password', hash)).toBe(false)
  })

  it('that is missing is matched by nothing, not even by what the comparison in its place is made of', async () => {
    for (const guess of ['', 'null', 'shared password'])
      expect(await hasher.matches(new Secret(guess), null, 'anybody')).toBe(false)
  })

  it('costs what the settings say, which is never less than 10 and 12 by default', async () => {
    expect(bcrypt.getRounds(await new Hasher(5).hash(new Secret('a secret'), 'anybody'))).toBe(5)
    expect(loadConfig({}).bcryptCost).toBeGreaterThanOrEqual(12)
    expect(() => loadConfig({ BCRYPT_COST: '9' })).toThrow('BCRYPT_COST')
  })

  it('is known to be weak when it cost less than it would now', async () => {
    const hash = await hasher.hash(new Secret('a secret'), 'anybody')
    expect([new Hasher(5).isWeak(hash), new Hasher(4).isWeak(hash)]).toEqual([true, false])
  })
})
