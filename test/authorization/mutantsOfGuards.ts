import type { Mutant } from './mutantsOfDeclarations.ts'

type Swap = [what: string, instead: string]

/** A guard taken away, all of it at once, so that nothing but the guard is missing. */
const without = (kind: Mutant['kind'], name: string, file: string, swaps: Swap[], ...tests: string[]): Mutant => ({
  kind,
  name: `${file}: ${name}`,
  file,
  change: (text) =>
    swaps.reduce((changed, [what, instead]) => {
      if (!changed.includes(what)) throw new Error(`${file} does not hold ${what}: say what it holds now.`)
      return changed.replaceAll(what, instead)
    }, text),
  tests,
  named: true,
})

const vault = 'src/kernel/vault.ts'
const ofVault = 'test/kernel/vault.test.ts'
const sealing = 'return Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()])'
const opening =
  'return Buffer.concat([decipher.update(sealed.subarray(nonceBytes, sealed.length - tagBytes)), decipher.final()])'
const inVault = (name: string, ...swaps: Swap[]): Mutant => without('vault', name, vault, swaps, ofVault)

const vaultMutants = [
  inVault('plain base64 in the place of encryption', [sealing, 'return cipher && Buffer.concat([nonce, plaintext])'], ['const tag = sealed.subarray(sealed.length - tagBytes)', 'if (key) return sealed.subarray(nonceBytes)\n  const tag = sealed.subarray(sealed.length - tagBytes)']),
  inVault('bytes in reverse order in the place of encryption', [sealing, 'return Buffer.concat([nonce, Buffer.from(plaintext).reverse(), cipher.final(), Buffer.alloc(tagBytes)])'], [opening, 'return Buffer.from(sealed.subarray(nonceBytes, sealed.length - tagBytes)).reverse()']),
  inVault('one data key for all categories', ['`${category}:${version}`', '`${version}`']),
  inVault('a data key that everybody knows', ['master.wrap(randomBytes(32)', 'master.wrap(Buffer.alloc(32, 7)']),
  inVault('no additional data', ['.setAAD(Buffer.from(context))', '']),
  inVault('bound to its first part alone', ["boundTo.join('\\u0000'))", 'String(boundTo[0]))']),
  inVault('bound to its parts without their borders', ["boundTo.join('\\u0000'))", "boundTo.join(''))"]),
  inVault('one nonce for all', ['const nonce = randomBytes(nonceBytes)', 'const nonce = Buffer.alloc(nonceBytes)']),
  inVault('the authentication tag not checked', [opening, 'return decipher.update(sealed.subarray(nonceBytes, sealed.length - tagBytes))']),
  inVault('codes hashed without a key', ["createHmac('sha256', key)", "createHmac('sha256', '')"]),
  inVault('codes hashed for everybody alike', ['[...boundTo, code.reveal()]', '[code.reveal()]']),
] // prettier-ignore

const ofRest = 'test/kernel/atRest.test.ts'
const atRest = (name: string, file: string, ...swaps: Swap[]): Mutant => without('at rest', name, file, swaps, ofRest)
const services = 'src/modules/services/operations.ts'

const restMutants = [
  atRest('a user’s token in the clear', services, ["platform.vault.seal('serviceToken', [orgId, userId, serviceId], token)", 'token.reveal()']),
  atRest('a user’s token in base64', services, ["platform.vault.seal('serviceToken', [orgId, userId, serviceId], token)", "`v1.${Buffer.from(token.reveal()).toString('base64url')}`"]),
  atRest('a user’s token bound to no service', services, ["[orgId, userId, serviceId], token", '[orgId, userId], token']),
  atRest('the shared token in the clear', services, ["platform.vault.seal('serviceToken', [orgId, 'shared', serviceId], token)", 'token.reveal()']),
  atRest('a signing key in the clear', 'src/modules/sessions/keyring.ts', ["vault.seal('signingKey', [kid], new Secret(await exportPKCS8(privateKey)))", 'vault && (await exportPKCS8(privateKey))'], ["vault.open('signingKey', [current.kid], current.sealedPrivate)", 'vault && new Secret(current.sealedPrivate)']),
  atRest('a TOTP secret in the clear', 'src/modules/accounts/totp.ts', ["platform.vault.seal('mfaSecret', boundTo(userId, factorId), secret)", 'secret.reveal()'], ["platform.vault.open('mfaSecret', boundTo(userId, id), sealedSecret ?? '')", "new Secret(sealedSecret ?? '')"], ["platform.vault.open('mfaSecret', boundTo(factor.userId, factor.id), factor.sealedSecret ?? '')", "new Secret(factor.sealedSecret ?? '')"]),
  atRest('recovery codes in the clear', 'src/modules/accounts/recoveryCodes.ts', ["platform.vault.macs('mfaSecret', ['recoveryCode', userId], new Secret(code))", '[code]']),
  atRest('refresh tokens in the clear', 'src/modules/sessions/refreshTokens.ts', ["createHash('sha256').update(token.reveal()).digest('hex')", 'token.reveal()']),
  atRest('refresh tokens in hexadecimal', 'src/modules/sessions/refreshTokens.ts', ["createHash('sha256').update(token.reveal()).digest('hex')", "Buffer.from(token.reveal()).toString('hex')"]),
  atRest('the tokens of mails in the clear', 'src/modules/accounts/verificationTokens.ts', ["createHash('sha256').update(token.reveal()).digest('hex')", 'token.reveal()']),
  atRest('waiting mail in the clear', 'src/kernel/mail.ts', ["this.#platform.vault.seal('mail', [id], new Secret(JSON.stringify(content)))", 'JSON.stringify(content)'], ["this.#platform.vault.open('mail', [id], sealed).reveal()", 'sealed']),
  atRest('API keys in the clear', 'src/modules/apiKeys/operations.ts', ['await platform.hasher.hash(minted.secret)', 'minted.secret.reveal()']),
] // prettier-ignore

const hashing = 'src/kernel/hashing.ts'
const ofHashing = 'test/kernel/hashing.test.ts'

const hashingMutants = [
  without('hashing', 'any secret matches', hashing, [['await this.#gate.run(() => bcrypt.compare(digest(secret), against))', 'against !== null']], ofHashing),
  without('hashing', 'no hash is matched like one', hashing, [['return same && hash !== null', 'return same || hash === null']], ofHashing),
  without('hashing', 'a lower cost than configured', hashing, [['bcrypt.hash(digest(secret), this.#cost)', 'bcrypt.hash(digest(secret), 4)']], ofHashing),
  without('hashing', 'what bcrypt reads of the bare secret', hashing, [["createHmac('sha256', domain).update(secret.reveal()).digest('base64')", 'domain && createHmac && secret.reveal()']], ofHashing),
  without('hashing', 'the bare digest of a secret', hashing, [["createHmac('sha256', domain)", "createHash('sha256')"], ['import { createHmac }', 'import { createHash }'], ["const domain = 'mcp-platform/bcrypt/v1'\n", '']], ofHashing),
  without('hashing', 'a cost of less than 10', 'src/config.ts', [['.min(10)\n    .max(15)', '.min(4)\n    .max(15)']], ofHashing),
] // prettier-ignore

const ofLimits = 'test/kernel/throttle.test.ts'
const limitMutants = [
  without('limits', 'no quota', 'src/kernel/throttle.ts', [['const granted = Math.max(0, Math.min(take, limit - total + take))', 'const granted = take']], ofLimits),
  without('limits', 'one quota for all keys', 'src/kernel/throttle.ts', [['`${this.#name}:${key}`', 'this.#name']], ofLimits),
  without('limits', 'no lock', 'src/kernel/lockout.ts', [['const over = total - freeFailures', 'const over = -total * freeFailures']], ofLimits),
  without('limits', 'a lock that lets everybody through', 'src/kernel/lockout.ts', [['if (standing) throw', 'if (standing && !store) throw'], ['if (taken.total > 1) {', 'if (!taken) {']], ofLimits),
] // prettier-ignore

const logFile = 'src/kernel/log.ts'
const secretFile = 'src/kernel/secret.ts'
const ofLog = 'test/kernel/log.test.ts'
const logMutants = [
  without('log', 'no redaction', logFile, [["redact: { paths: secretNames.flatMap(underAnyParent), censor: '[secret]' },", '']], ofLog),
  without('log', 'redaction of the first level alone', logFile, [["['', '*', '*.*', '*.*.*']", "['']"]], ofLog),
  without('log', 'no redaction of refresh tokens', logFile, [["'refreshToken', ", '']], ofLog),
  without('log', 'secrets that print as JSON', secretFile, [['toJSON(): string {\n    return printed', 'toJSON(): string {\n    return String(this.#value)']], ofVault),
  without('log', 'secrets that print as text', secretFile, [['toString(): string {\n    return printed', 'toString(): string {\n    return String(this.#value)']], ofVault),
  without('log', 'secrets that print when inspected', secretFile, [['[inspect.custom](): string {\n    return printed', '[inspect.custom](): string {\n    return String(this.#value)']], ofVault),
] // prettier-ignore

const ofFiles = 'test/kernel/fileModes.test.ts'
const fileMutants = [
  without('files', 'a master key that everybody reads', 'src/compose.ts', [["'wx', 0o600", "'wx', 0o644"]], ofFiles),
  without('files', 'a data folder that everybody enters', 'src/compose.ts', [['mode: 0o700', 'mode: 0o755']], ofFiles),
  without('files', 'a lock that everybody reads', 'src/kernel/database/directoryLock.ts', [['mode: 0o600', 'mode: 0o644']], ofFiles),
  without('files', 'a folder of mail that everybody enters', 'src/kernel/mail.ts', [['mode: 0o700', 'mode: 0o755']], ofFiles),
  without('files', 'mail that everybody reads', 'src/kernel/mail.ts', [['mode: 0o600', 'mode: 0o644']], ofFiles),
] // prettier-ignore

/** Guards of the kernel and of what is stored, taken away one at a time. */
export const guardMutants: readonly Mutant[] = [
  ...vaultMutants,
  ...restMutants,
  ...hashingMutants,
  ...limitMutants,
  ...logMutants,
  ...fileMutants,
]
