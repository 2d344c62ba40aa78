import { createHash } from 'node:crypto'
import type { FormattedExecutionResult } from 'graphql'

// `private`: it is one caller's answer. `no-cache`: kept, and asked about each time, so that a revoked credential is refused
// and a changed row is seen at once (RFC 9111, 5.2.2.4). The validator is weak, since what is left of the caller's budget is
// another each time and changes nothing in the data.
const headers = { 'Cache-Control': 'private, no-cache', Vary: 'Accept, Authorization, X-API-Key' }

const asks = (request: Request, etag: string): boolean =>
  (request.headers.get('if-none-match') ?? '').split(',').some((each) => each.trim() === etag || each.trim() === '*')

/** The answer of a registered query that was asked for by GET, for caches; 304 where the asker has it. */
export async function cacheable(request: Request, response: Response): Promise<Response> {
  if (response.status !== 200) return response
  const text = await response.text()
  const { data, errors } = JSON.parse(text) as FormattedExecutionResult
  const kept = new Headers(response.headers)
  if (errors) return new Response(text, { status: 200, headers: kept })
  const etag = `W/"${createHash('sha256').update(JSON.stringify(data)).digest('base64url')}"`
  for (const [name, value] of Object.entries({ ...headers, ETag: etag })) kept.set(name, value)
  if (!asks(request, etag)) return new Response(text, { status: 200, headers: kept })
  for (const name of ['content-type', 'content-length']) kept.delete(name)
  return new Response(null, { status: 304, headers: kept })
}
