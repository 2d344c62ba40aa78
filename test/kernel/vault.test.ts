import { createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { Secret } from '../../src/kernel/secret.ts'
import { dataCategories, MasterKey, newWrappedKey, Vault, type WrappedKey } from '../../src/kernel/vault.ts'
import { formsOf } from '../harness/encodings.ts'

const master = new MasterKey(MasterKey.generate())
const keysOf = (version: number): WrappedKey[] => dataCategories.map((category) => newWrappedKey(master, category, version)) // prettier-ignore
const first = keysOf(1)
const vault = new Vault(master, first)
const boundTo = ['an organisation', 'a user', 'a service']
const text = 'upstream-token-4711-abcdefgh'
const seal = (of = vault): string => of.seal('serviceToken', boundTo, new Secret(text))
const open = (sealed: string, of = vault): string => of.open('serviceToken', boundTo, sealed).reveal()

describe('a sealed value', () => {
  it.each(['', 'a', text, 'Grüße, 世界', 'x'.repeat(10_000)])('opens to what was sealed', (plain) => {
    const sealed = vault.seal('mail', ['1'], new Secret(plain))
    expect(vault.open('mail', ['1'], sealed).reveal()).toBe(plain)
  })

  it('shows what was sealed in no encoding', () => {
    const [, body = ''] = seal().split('.')
    const bytes = Buffer.from(body, 'base64url')
    for (const shown of [body, bytes.toString('latin1'), bytes.toString('hex')])
      for (const form of formsOf(text)) expect(shown.toLowerCase()).not.toContain(form)
    // Nonce, ciphertext and tag: what is longer holds something else.
    expect(bytes).toHaveLength(12 + text.length + 16)
  })

  it('differs each time, by a nonce that never comes again', () => {
    const all = Array.from({ length: 2000 }, () => seal())
    expect(new Set(all).size).toBe(2000)
    expect(new Set(all.map((sealed) => Buffer.from(sealed.slice(3), 'base64url').toString('hex', 0, 12))).size).toBe(2000) // prettier-ignore
  })

  it.each(dataCategories.filter((category) => category !== 'serviceToken'))('opens under no other category: %s', (other) => {
    expect(() => vault.open(other, boundTo, seal())).toThrow()
  }) // prettier-ignore

  it.each([
    ['another row', ['an organisation', 'a user', 'another service']],
    ['another order', ['a user', 'an organisation', 'a service']],
    ['less', ['an organisation', 'a user']],
    ['nothing', []],
    ['the same letters, divided elsewhere', ['an organisation', 'a use', 'ra service']],
  ])('opens bound to nothing else: %s', (_name, elsewhere) => {
    expect(() => vault.open('serviceToken', elsewhere, seal())).toThrow()
  })

  it('is refused when any of its bits was turned', () => {
    const bytes = Buffer.from(seal().slice(3), 'base64url')
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const turned = Buffer.from(bytes)
      turned.writeUInt8(turned.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
      expect(() => open(`v1.${turned.toString('base64url')}`), `bit ${bit}`).toThrow()
    }
  })

  it('is refused cut short, with more at its end, and without its form', () => {
    const sealed = seal()
    const bytes = Buffer.from(sealed.slice(3), 'base64url')
    for (let length = 0; length < bytes.length; length += 1)
      expect(() => open(`v1.${bytes.toString('base64url', 0, length)}`), `${length} bytes`).toThrow()
    for (const bad of [
      '',
      text,
      `v1.${text}`,
      sealed.slice(3),
      `${sealed}AAAA`,
      `v1.${sealed}`,
      Buffer.from(text).toString('base64'),
    ])
      // prettier-ignore
      expect(() => open(bad)).toThrow()
  })

  it('is AES-256-GCM under the category’s own key, bound by its additional data, as other code can tell', () => {
    const raw = randomBytes(32).toString('base64')
    const key = newWrappedKey(new MasterKey(raw), 'serviceToken', 1)
    const gcm = (secret: Buffer, sealed: Buffer, context: string): Buffer => {
      const decipher = createDecipheriv('aes-256-gcm', secret, sealed.subarray(0, 12)).setAAD(Buffer.from(context))
      decipher.setAuthTag(sealed.subarray(-16))
      return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()])
    }
    const wrapping = Buffer.from(hkdfSync('sha256', Buffer.from(raw, 'base64'), '', 'wrap', 32))
    const dataKey = gcm(wrapping, Buffer.from(key.wrapped), 'serviceToken:1')
    const sealed = Buffer.from(seal(new Vault(new MasterKey(raw), [key])).slice(3), 'base64url')
    expect(gcm(dataKey, sealed, boundTo.join('\u0000')).toString()).toBe(text)
  })
})

describe('key versions', () => {
  const both = new Vault(master, [...first, ...keysOf(2)])

  it('seal with the newest, and open what the one before sealed', () => {
    expect(open(seal(), both)).toBe(text)
    expect(seal(both)).toMatch(/^v2\./)
    expect(open(seal(both), both)).toBe(text)
  })

  it('are no label: a value said to be of another version is refused', () => {
    expect(() => open(seal(both).replace(/^v2/, 'v1'), both)).toThrow()
    expect(() => open(seal().replace(/^v1/, 'v2'), both)).toThrow()
  })

  it('that are not known open nothing', () => {
    expect(() => open(seal(both))).toThrow('no known key version')
  })

  it('of no category seal nothing', () => {
    const one = new Vault(master, first.filter(({ category }) => category === 'mail')) // prettier-ignore
    expect(() => seal(one)).toThrow('no data key for serviceToken')
  })
})

describe('a wrapped data key', () => {
  it('differs for each category and each time', () => {
    const all = [...keysOf(1), ...keysOf(1)].map(({ wrapped }) => Buffer.from(wrapped).toString('hex'))
    expect(new Set(all).size).toBe(all.length)
  })

  it('unwraps under no other master key', () => {
    expect(() => new Vault(new MasterKey(MasterKey.generate()), first)).toThrow()
  })

  it('unwraps as no other category and as no other version, so that rows cannot be exchanged', () => {
    const [key = newWrappedKey(master, 'mail', 1)] = first
    expect(() => new Vault(master, [{ ...key, category: 'mail' }])).toThrow()
    expect(() => new Vault(master, [{ ...key, version: 2 }])).toThrow()
  })

  it('needs a master key of 32 bytes', () => {
    for (const bytes of [0, 16, 31, 33])
      expect(() => new MasterKey(randomBytes(bytes).toString('base64'))).toThrow('32 bytes')
  })
})

describe('the keyed hash of a code', () => {
  const code = new Secret('4711-0815')
  const mac = (of = vault, ...to: string[]): string => of.macs('mfaSecret', to, code)[0]

  it('is the same for the same code, and another for another code, person, category and platform', () => {
    const elsewhere = new MasterKey(MasterKey.generate())
    const other = new Vault(elsewhere, dataCategories.map((category) => newWrappedKey(elsewhere, category, 1))) // prettier-ignore
    expect(mac(vault, 'a')).toBe(mac(vault, 'a'))
    const all = [mac(vault, 'a'), mac(vault, 'b'), mac(other, 'a'), vault.macs('mail', ['a'], code)[0], vault.macs('mfaSecret', ['a'], new Secret('4711-0816'))[0]] // prettier-ignore
    expect(new Set(all).size).toBe(all.length)
  })

  it('is none that anybody without a key can work out', () => {
    for (const guess of [createHmac('sha256', ''), createHmac('sha256', 'mac')])
      expect(mac(vault, 'a')).not.toContain(guess.update('a\u00004711-0815').digest('base64url'))
  })

  it('matches what an earlier key version made', () => {
    const both = new Vault(master, [...first, ...keysOf(2)])
    expect(both.macs('mfaSecret', ['a'], code)).toContain(mac(vault, 'a'))
    expect(both.macs('mfaSecret', ['a'], code)[0]).not.toBe(mac(vault, 'a'))
  })
})

describe('a secret', () => {
  it('prints on no road to text', () => {
    const secret = new Secret(text)
    const printed = [String(secret), `${secret.toString()}`, JSON.stringify({ secret }), inspect({ secret }, { depth: 9, showHidden: true }), inspect(secret, { customInspect: false, showHidden: true }), JSON.stringify(Object.entries(secret)), JSON.stringify(structuredClone(secret))] // prettier-ignore
    for (const each of printed) expect(each).not.toContain(text)
    expect(secret.reveal()).toBe(text)
  })
})
