import type { CookieJar } from '../graphql/context.ts'
import { Secret } from '../kernel/secret.ts'

// The prefix makes browsers refuse the cookie unless it is Secure, without Domain and for the whole host (RFC 6265bis, 4.1.3.2).
const name = '__Host-refresh'
const attributes = 'Path=/; HttpOnly; Secure; SameSite=Strict'
const wellFormed = /^[\w-]{43}$/

/** The one refresh cookie of a request; none where there are two, since one of them was planted. */
function readRefreshToken(headers: Headers): Secret | null {
  const found = (headers.get('cookie') ?? '')
    .split(';')
    .map((pair) => pair.trim())
    .filter((pair) => pair.startsWith(`${name}=`))
    .map((pair) => pair.slice(name.length + 1))
  const [token] = found
  return found.length === 1 && token && wellFormed.test(token) ? new Secret(token) : null
}

/** What a browser's cookie brings to a request; `refreshSession` alone looks at it, and it authenticates nothing else. */
export function readJar(headers: Headers, publicUrl: string): CookieJar {
  return {
    refreshToken: readRefreshToken(headers),
    sameOrigin:
      headers.get('origin') === new URL(publicUrl).origin && headers.get('x-requested-with') === 'mcp-platform',
    change: null,
  }
}

/** The `Set-Cookie` header of an answer, if a resolver changed the cookie. */
export function setCookieHeader({ change }: CookieJar, now: Date): string | null {
  if (change === null) return null
  if (change === 'clear') return `${name}=; ${attributes}; Max-Age=0`
  const seconds = Math.max(0, Math.floor((change.expiresAt.getTime() - now.getTime()) / 1000))
  return `${name}=${change.token.reveal()}; ${attributes}; Max-Age=${seconds}`
}
