import { createHash, randomUUID } from 'node:crypto'
import { errors, jwtVerify, SignJWT } from 'jose'
import { z } from 'zod'
import { member, type Member, type Origin } from '../../kernel/actor.ts'
import { boundedCache } from '../../kernel/boundedCache.ts'
import { AppError } from '../../kernel/errors.ts'
import { isScope, roles } from '../../kernel/permissions.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { keyring, signingAlgorithm } from './keyring.ts'
import { lastUse } from './lastUse.ts'

/** The claims of an access token (RFC 9068). `sid` names the session, which the database confirms at every statement. */
const claims = z.object({
  sub: z.uuid(),
  org: z.uuid(),
  role: z.enum(roles),
  scope: z.string().transform((text) => text.split(' ').filter(isScope)),
  sid: z.uuid(),
  jti: z.string(),
  iat: z.number(),
  exp: z.number(),
  mfa_at: z.number().optional(),
})
export type AccessClaims = z.infer<typeof claims>

const tokenType = 'at+jwt'
/** Several times what is issued; nothing longer is hashed or parsed. */
const longestTokenChars = 4096

/** Signs a session's access token; at most `accessTokenTtlSeconds` long, and never longer than the session. */
export async function issueAccessToken(
  platform: Platform,
  session: { id: string; userId: string; orgId: string; expiresAt: Date; mfaAt: Date | null },
  { role, scopes }: { role: Member['role']; scopes: readonly string[] },
  now: Date,
): Promise<{ accessToken: string; expiresAt: Date }> {
  const issuedAt = Math.floor(now.getTime() / 1000)
  const exp = Math.min(issuedAt + platform.config.accessTokenTtlSeconds, Math.floor(session.expiresAt.getTime() / 1000))
  const { kid, privateKey } = await keyring(platform).signingKey()
  const accessToken = await new SignJWT({
    client_id: platform.publicUrl,
    org: session.orgId,
    role,
    scope: scopes.join(' '),
    sid: session.id,
    ...(session.mfaAt ? { mfa_at: Math.floor(session.mfaAt.getTime() / 1000) } : {}),
  })
    .setProtectedHeader({ alg: signingAlgorithm, typ: tokenType, kid })
    .setIssuer(platform.publicUrl)
    .setAudience(platform.publicUrl)
    .setSubject(session.userId)
    .setJti(randomUUID())
    .setIssuedAt(issuedAt)
    .setNotBefore(issuedAt)
    .setExpirationTime(exp)
    .sign(privateKey)
  return { accessToken, expiresAt: new Date(exp * 1000) }
}

// Signature and claims of a token never change, so a verified one is remembered by its hash until it expires.
// Whether its session still stands is not remembered: the database is asked with every statement.
const verified = resource(() => boundedCache<AccessClaims>(10_000))

async function verify(platform: Platform, token: string): Promise<AccessClaims> {
  const known = verified(platform)
  const hash = createHash('sha256').update(token).digest('base64')
  const now = platform.clock()
  const hit = known.get(hash)
  if (hit && hit.exp * 1000 > now.getTime()) return hit
  const { payload } = await jwtVerify(
    token,
    async ({ kid }) => {
      const key = kid ? await keyring(platform).verifyingKey(kid) : null
      if (!key) throw new errors.JWKSNoMatchingKey()
      return key
    },
    {
      // Pinned, whatever the token says of itself (RFC 8725, sections 3.1 and 3.11).
      algorithms: [signingAlgorithm],
      typ: tokenType,
      issuer: platform.publicUrl,
      audience: platform.publicUrl,
      requiredClaims: ['exp', 'iat', 'nbf', 'sub', 'jti'],
      maxTokenAge: '24h',
      clockTolerance: 5,
      currentDate: now,
    },
  )
  const parsed = claims.parse(payload)
  known.set(hash, parsed)
  return parsed
}

/** The member that an access token speaks for. Throws `TOKEN_EXPIRED` or `UNAUTHENTICATED`, never saying why in detail. */
export async function memberOfToken(platform: Platform, token: string, origin: Origin): Promise<Member> {
  try {
    if (token.length > longestTokenChars) throw new errors.JWTInvalid('longer than any that was issued')
    const { sub, org, role, scope, sid, mfa_at } = await verify(platform, token)
    lastUse(platform).note(sid, platform.clock())
    const mfaAt = mfa_at === undefined ? null : new Date(mfa_at * 1000)
    return member(
      { kind: 'user', userId: sub, orgId: org, role, credentialId: sid, mfaAt, origin, given: scope },
      platform.clock(),
    )
  } catch (cause) {
    if (cause instanceof errors.JWTExpired)
      throw new AppError('TOKEN_EXPIRED', 'The access token has expired.', { cause })
    if (cause instanceof errors.JOSEError || cause instanceof z.ZodError)
      throw new AppError('UNAUTHENTICATED', 'The access token is not valid.', { cause })
    throw cause
  }
}
