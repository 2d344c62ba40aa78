import { createPublicKey, verify, type JsonWebKey, type KeyObject } from 'node:crypto'

const keys = new Map<string, KeyObject>()

export type Claims = { sub: string; org: string; role: string; scope: string; sid: string; exp: number }

/** The claims of an RS256 access token; throws where signature or expiry do not hold. Synchronous, the cheapest way there is. */
export function claimsOf(authorization: string | undefined, jwk: string): Claims {
  const [head = '', body = '', signature = ''] = (authorization ?? '').replace(/^Bearer /, '').split('.')
  const key = keys.get(jwk) ?? createPublicKey({ key: JSON.parse(jwk) as JsonWebKey, format: 'jwk' })
  keys.set(jwk, key)
  if (!verify('sha256', Buffer.from(`${head}.${body}`), key, Buffer.from(signature, 'base64url')))
    throw new Error('bad signature')
  const claims = JSON.parse(Buffer.from(body, 'base64url').toString()) as Claims
  if (claims.exp * 1000 < Date.now()) throw new Error('expired')
  return claims
}
