import { describe, expect, it } from 'vitest'
import { missing, type Proof } from './namedTests.ts'

const tokens = (title: string): Proof => ['sessions/tokens.test.ts', title]
const refresh = (title: string): Proof => ['sessions/refresh.test.ts', title]
const rotation = (title: string): Proof => ['sessions/rotation.test.ts', title]
const mfa = (title: string): Proof => ['sessions/mfa.test.ts', title]
const passkey = (title: string): Proof => ['sessions/mfaPasskey.test.ts', title]
const stepUp = (title: string): Proof => ['sessions/mfaStepUp.test.ts', title]
const format = (title: string): Proof => ['apiKeys/format.test.ts', title]
const keyAttack = (title: string): Proof => ['apiKeys/attacks.test.ts', title]
const lifecycle = (title: string): Proof => ['apiKeys/lifecycle.test.ts', title]
const limits = (title: string): Proof => ['edge/limits.test.ts', title]
const locks = (title: string): Proof => ['edge/signInLocks.test.ts', title]
const hashing = (title: string): Proof => ['edge/hashing.test.ts', title]
const revocation = (title: string): Proof => ['edge/revocation.test.ts', title]
const passwords = (title: string): Proof => ['accounts/passwords.test.ts', title]
const verification = (title: string): Proof => ['accounts/verification.test.ts', title]
const enumeration = (title: string): Proof => ['accounts/enumeration.measured.ts', title]
const measured = (title: string): Proof => ['edge/hashing.measured.ts', title]
const browser = (title: string): Proof => ['browser/passkey.browser.test.ts', title]
const graphiql = (title: string): Proof => ['browser/graphiql.browser.test.ts', title]

/** The rows of the requirement's sections "Authentication Security" and "Multi-factor Authentication", word for word. */
const rows: Record<string, Record<string, Proof[]>> = {
  'JWT: Token Generation': {
    'JWTs are signed using RS256 (RSA Signature with SHA-256)': [
      tokens(
        'is signed with RS256 by a key of the published set, with the standard claims of RFC 9068, for fifteen minutes',
      ),
      tokens('signed by the right key with another algorithm, %s, is refused'),
    ],
    'Private key is stored securely and rotated periodically': [
      rotation('keeps private halves sealed, out of the reach of requests and of the log'),
      rotation('rotates by schedule, once, whichever instances look'),
      rotation('fails no request of any instance while keys rotate under load'),
    ],
    'Tokens include standard claims (iss, sub, exp, iat)': [
      tokens(
        'is signed with RS256 by a key of the published set, with the standard claims of RFC 9068, for fifteen minutes',
      ),
      tokens('with %s is refused'),
    ],
    'Short expiration times (24 hours) with refresh token mechanism': [
      tokens('lives a day at the most: settings that ask for more are refused'),
      tokens('that was issued for longer than a day is refused after a day'),
      refresh('rotates the token at each use and keeps the session'),
      refresh('slides for thirty days'),
      refresh('ends after ninety days however often it was refreshed, and says so in the cookie'),
    ],
  },
  'JWT: Token Validation': {
    'Signature verification using public key': [
      tokens('with a flipped bit in any part is refused'),
      tokens('signed with HS256 under the public key is refused, in each form that the key has'),
    ],
    'Expiration validation': [
      tokens('that expired is refused as expired, also when it was accepted before'),
      tokens('that is not yet valid is refused'),
    ],
    'Issuer validation': [tokens('with %s is refused')],
    'Audience validation when applicable': [tokens('with %s is refused')],
  },
  'JWT: Token Storage': {
    'Tokens are stored in memory (not localStorage) in browser clients': [
      graphiql('stores neither token nor password, nor what was written, in the browser'),
      ['browser/signIn.browser.test.ts', 'ends the session on the server, not only on the screen'],
    ],
    'Refresh tokens use HTTP-only cookies with secure flag': [
      refresh('gives a cookie that scripts, other hosts, plain HTTP and other sites never see'),
      refresh('takes the token from the cookie alone, never from the document'),
    ],
    'Anti-CSRF measures implemented for refresh token usage': [
      refresh('refuses a request of %s, and rotates nothing'),
      refresh('authenticates nothing else by the cookie'),
    ],
  },
  'API key: Key Generation': {
    'Cryptographically secure random generation': [
      format('holds 256 random bits, each of which is set in half of all keys'),
    ],
    '256-bit entropy minimum': [format('holds 256 random bits, each of which is set in half of all keys')],
    'Prefixed format for easy identification (`mcp_sk_*`)': [
      format('begins with mcp_sk_, names itself in public, and ends with the checksum that scanners know'),
    ],
  },
  'API key: Key Storage': {
    'Only hashed versions stored in database': [
      hashing('is all that is stored of keys and passwords, at the configured cost'),
    ],
    'bcrypt hashing with appropriate work factor': [
      hashing('is all that is stored of keys and passwords, at the configured cost'),
      format('hashes are never made at the cost %s: the settings refuse it'),
      passwords('is hashed anew at sign-in when the cost has risen, and no request fails meanwhile'),
    ],
    'Original key shown only once to user': [
      lifecycle('shows the secret once: no later answer, trail or log line holds it'),
    ],
  },
  'API key: Key Validation': {
    'Constant-time comparison to prevent timing attacks': [
      keyAttack('costs the same one bcrypt whether its id is made up, revoked or right, so that time tells nothing'),
      keyAttack('is answered alike when it is made up, revoked, expired, or right by its id alone'),
    ],
    'Rate limiting on API key endpoints': [
      ['edge/twoInstances.test.ts', 'a key is held to the rate that its maker gave it'],
      limits('count when they present a bad one, so that guesses run dry'),
    ],
    'Automatic lockout after repeated invalid attempts': [
      keyAttack('locks its source when many different ones come, in the trail, and never a key'),
      keyAttack('counts guesses that come at once one by one'),
    ],
  },
  'MFA: Supported Methods': {
    'Time-based One-Time Password (TOTP)': [
      mfa('is enrolled with the password again, shown as address and QR code, and counts after its first code'),
      mfa('answers the password with a challenge and no token, and the code with a session that is fresh'),
    ],
    'Email verification codes': [
      stepUp('are enrolled by the first one, finish a sign-in once, and for that sign-in alone'),
      stepUp('step up, die after ten minutes, and are void once another one is sent'),
    ],
    'WebAuthn/FIDO2 (future implementation)': [
      browser('registers a passkey, which opens what administrators do'),
      browser('signs in with it after the password'),
      browser('signs in with it alone'),
      browser('steps up a session that stood before the passkey did'),
    ],
  },
  'MFA: Implementation': {
    'MFA required for administrative actions': [
      stepUp(
        'all ask for a fresh second factor: every mutation of an administrator’s scope, and the deletion of a service',
      ),
      stepUp('name the methods that would do, and open for ten minutes by stepUp, no longer'),
      mfa('can neither step up nor touch second factors, and never pass an administrative rule'),
    ],
    'Optional for general user authentication': [
      mfa('is one step for whoever enrolled none, where the organisation does not require one'),
      stepUp('lets members who have none do nothing but enrol, from their next request on'),
    ],
    'Recovery codes provided for backup access': [
      mfa('are good once each, however they are typed'),
      mfa('are void once new ones are made, which needs a fresh second factor'),
    ],
  },
}

/** Attacks that were tried on others, each by the test that tries it here. */
const attacks: Record<string, Proof[]> = {
  'alg: none': [tokens('with the algorithm %s is refused, with and without a signature')],
  'HS256 with the public key': [
    tokens('signed with HS256 under the public key is refused, in each form that the key has'),
  ],
  'foreign kid': [tokens('naming the foreign key %j is refused'), tokens('naming no key is refused')],
  'jku, jwk, x5u and x5c headers': [
    tokens('bringing a key of its own (jwk, jku, x5u, x5c) is refused, and nothing is fetched'),
  ],
  'wrong iss, aud or other claim': [tokens('with %s is refused')],
  'wrong typ': [tokens('of the type %s is refused: an id or refresh token is none')],
  expired: [tokens('that expired is refused as expired, also when it was accepted before')],
  'not yet valid': [tokens('that is not yet valid is refused')],
  'id token as access token': [tokens('that is an id token of this very issuer, signed with its key, is refused')],
  'refresh token as access token': [tokens('that is an opaque refresh token is refused')],
  'claims of another organisation': [
    tokens('that claims another organisation, or a higher role, is refused by the database'),
  ],
  'key of another organisation': [keyAttack('of another organisation sees nothing of this one')],
  'truncated and bit-flipped keys': [
    keyAttack('costs no bcrypt and no statement, wherever it was cut or a bit was flipped'),
  ],
  'truncated and bit-flipped tokens': [
    tokens('truncated anywhere is refused'),
    tokens('with a flipped bit in any part is refused'),
  ],
  'reuse after rotation': [
    refresh(
      'ends the whole family when a token comes again after the grace, for good and on every instance, with a security event',
    ),
    lifecycle('ends the old secret at once without an overlap, and refuses its reuse'),
  ],
  'two concurrent refreshes': [
    refresh('answers two tabs that refresh at the same time with the same successor, so the family never forks'),
  ],
  'TOTP replay': [
    mfa('refuses a code that was used, even in the next challenge, and takes the next one'),
    mfa('let a recovery code and a TOTP step be used once over several challenges'),
  ],
  'recovery code replay': [
    mfa('are good once each, however they are typed'),
    mfa('let one challenge be finished once'),
  ],
  'code guessing past the limit': [
    mfa('is over after five wrong tries, though the sixth code be right'),
    mfa('bounds guessing over any number of challenges, while a session that stands can still step up'),
    mfa('counts aliased guesses one by one'),
    stepUp('is bounded to five wrong tries, and a right one before that ends the count'),
  ],
  'password guessing past the limit': [
    locks('lock after repeated failures, the same for an account that does not exist'),
    locks('count aliases of one request one by one'),
    locks('never reach the owner: a session that stands works on, and a sign-in from the owner’s own address succeeds'),
  ],
  'WebAuthn with a wrong origin or challenge': [
    passkey('refuses an assertion for %s'),
    passkey('is refused %s'),
    passkey('keeps the challenges of sign-ins, sessions and people apart'),
  ],
  'WebAuthn replayed assertion': [
    passkey('refuses an assertion that was used, also where the first use failed'),
    passkey('lets one of two racing uses of an assertion pass'),
  ],
  'WebAuthn counter regression': [passkey('refuses a counter that does not grow, and says so in the trail')],
  'passkey across organisations': [
    passkey('acts in the organisation that was asked for, where its owner is an active member, and in no other'),
  ],
  'session fixation': [
    refresh('opens a new session at each sign-in, whatever cookie came along (session fixation)'),
    mfa(
      'is bound to the challenge of its own password step: one that a stranger opened opens nothing (session fixation)',
    ),
  ],
  'enumeration by answer and time': [
    enumeration('does not tell by the answer or time of a failed sign-in whether there is an account'),
    enumeration('does not tell by the answer or time of a password reset whether there is an account'),
    verification('is not revealed by signing up: the answer is the same, and mail tells its owner'),
  ],
  'mail-bombing': [
    passwords('sends at most three mails an hour to an account, and answers the rest as it answers the first'),
    verification('is bombed with three mails an hour at the most'),
    stepUp('are sent three times in fifteen minutes, also to those who ask at once'),
  ],
  'revoked credential at another instance': [
    revocation('that is revoked through one instance is refused by the other on its very next request'),
    revocation('slips through none of ${lateRequests} requests that race its revocation'),
  ],
  'rotation and re-hash under load': [
    rotation('fails no request of any instance while keys rotate under load'),
    lifecycle('fails no request while it happens'),
    passwords('is hashed anew at sign-in when the cost has risen, and no request fails meanwhile'),
  ],
  'flood of sign-ins': [
    measured('never blocks the loop: beside fifty sign-ins the p99 of a warm query grows less than threefold'),
    hashing(
      'leaves a core and threads to everybody else, however many sign in: a file is read while fifty hashes wait',
    ),
    hashing('is not asked for a warm key, nor for a session'),
  ],
}

describe.each(Object.entries(rows))('the requirement’s rows on %s', (_section, proofs) => {
  it.each(Object.entries(proofs))('each have a named test: %s', async (_row, named) => {
    expect(named).not.toEqual([])
    expect(await missing(named)).toEqual([])
  })
})

it('the requirement’s two sections have 26 rows, none of which is left out', () => {
  expect(Object.values(rows).flatMap((section) => Object.keys(section))).toHaveLength(26)
})

describe('every attack of the list', () => {
  it.each(Object.entries(attacks))('has a named test: %s', async (_attack, named) => {
    expect(await missing(named)).toEqual([])
  })
})

it('a test that is not there, or is skipped, would be noticed', async () => {
  const gone: Proof[] = [
    tokens('was renamed'),
    ['sessions/none.test.ts', 'anything'],
    ['seed/skipped.txt', 'is skipped'],
  ]
  expect(await missing(gone)).toHaveLength(3)
})
