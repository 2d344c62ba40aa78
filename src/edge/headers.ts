/** The security headers of every response. A response that set one of these itself (a static asset, the GraphiQL page) keeps its own. */
export const securityHeaders = {
  'Strict-Transport-Security': 'max-age=31536000; includeSubDomains',
  'Content-Security-Policy': "default-src 'self'; script-src 'self'; object-src 'none'",
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'X-XSS-Protection': '1; mode=block',
  'Referrer-Policy': 'strict-origin-when-cross-origin',
  'Cache-Control': 'no-store',
} as const

const own = new Set(['Content-Security-Policy', 'Cache-Control'])

const everyResponse = Object.entries(securityHeaders)

/** Sets them, on the response itself: each is of our own making, so its headers may be written. */
export function secure({ headers }: Response, requestId: string): void {
  for (const [name, value] of everyResponse) if (!own.has(name) || !headers.has(name)) headers.set(name, value)
  headers.set('X-Request-Id', requestId)
}
