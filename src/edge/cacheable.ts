import { createHash } from 'node:crypto'
import { Response } from '@whatwg-node/fetch'
import type { ExecutionResult } from 'graphql'

// `private`: it is one caller's answer. `no-cache`: kept, and asked about each time, so that a revoked credential is refused
// and a changed row is seen at once (RFC 9111, 5.2.2.4). The validator is weak, since what is left of the caller's budget is
// another each time and changes nothing in the data.
const headers = { 'Cache-Control': 'private, no-cache', Vary: 'Accept, Authorization, X-API-Key' }

const asks = (request: Request, etag: string): boolean =>
  (request.headers.get('if-none-match') ?? '').split(',').some((each) => each.trim() === etag || each.trim() === '*')

/** The answer to a registered query that was asked for by GET, for caches; 304 where the asker has it. */
export function cacheable(request: Request, { data, ...rest }: ExecutionResult, type: string): Response {
  const text = JSON.stringify(data)
  const ETag = `W/"${createHash('sha256').update(text).digest('base64url')}"`
  if (asks(request, ETag)) return new Response(null, { status: 304, headers: { ...headers, ETag } })
  const tail = JSON.stringify(rest).slice(1)
  return new Response(`{"data":${text}${tail === '}' ? '' : ','}${tail}`, {
    headers: { 'Content-Type': type, ...headers, ETag },
  })
}

/** The same for an answer that is written already. */
export async function cacheableAnswer(request: Request, answer: Response): Promise<Response> {
  if (answer.status !== 200) return answer
  const text = await answer.text()
  const result = JSON.parse(text) as ExecutionResult
  if (result.errors) return new Response(text, { headers: answer.headers })
  return cacheable(request, result, answer.headers.get('content-type') ?? 'application/json; charset=utf-8')
}
