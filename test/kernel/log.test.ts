import { describe, expect, it } from 'vitest'
import { createLog } from '../../src/kernel/log.ts'
import { Secret } from '../../src/kernel/secret.ts'

const canary = 'canary-secret-4711'
const names = ['authorization', 'cookie', 'password', 'newPassword', 'token', 'accessToken', 'refreshToken', 'secret', 'apiKey', 'ciphertext', 'passwordHash', 'secretHash', 'masterKey'] // prettier-ignore

/** What a line of the log says. */
function logged(fields: object): string {
  const lines: string[] = []
  createLog({ logLevel: 'debug' }, { write: (line: string) => void lines.push(line) }).error(fields, 'it failed')
  return lines.join('')
}

describe('the log', () => {
  it.each(names)('writes no %s, at any of the first levels', (name) => {
    for (const fields of [
      { [name]: canary },
      { a: { [name]: canary } },
      { a: { b: { [name]: canary } } },
      { a: { b: { c: { [name]: canary } } } },
    ]) {
      // prettier-ignore
      const line = logged({ ...fields, kept: 'this' })
      expect(line).not.toContain(canary)
      expect(JSON.parse(line)).toMatchObject({ kept: 'this', msg: 'it failed' })
    }
  })

  it.each(['x-api-key', 'set-cookie', 'authorization', 'cookie'])('writes no %s of a request’s headers', (name) => {
    expect(logged({ [name]: canary })).not.toContain(canary)
    expect(logged({ headers: { [name]: canary } })).not.toContain(canary)
    expect(logged({ req: { headers: { [name]: canary } } })).not.toContain(canary)
  })

  it('writes an error with its message and stack, and no secret of its fields or of its cause’s', () => {
    const cause = Object.assign(new Error('the cause'), { secret: canary })
    const line = logged({ err: Object.assign(new Error('it broke', { cause }), { token: canary, config: { password: canary } }) }) // prettier-ignore
    expect(line).toContain('it broke')
    expect(line).not.toContain(canary)
  })

  it('writes no secret that came as one, whatever its name', () => {
    expect(logged({ harmless: new Secret(canary), list: [new Secret(canary)] })).not.toContain(canary)
  })
})
