import type { Asked, Reply } from '../../kernel/outboundExchange.ts'
import type { AnswerBounds, Fetch, Send, UpstreamTarget } from './types.ts'
import { upstreamError } from './upstreamErrors.ts'

const redirects: readonly number[] = [301, 302, 303, 307, 308]
const maxRedirects = 3
/** Silence is judged by the deadline of each request, which knows when a person is being asked. */
const dayMs = 86_400_000

type Asking = { method?: string | undefined; headers: Readonly<Record<string, string>> }

const plain = (headers: RequestInit['headers']): Record<string, string> =>
  headers === undefined ? {} : Object.fromEntries(new Headers(headers))

/** Streams for change events; all others end with an answer. */
const staysOpen = ({ method, headers }: Asking): boolean =>
  method === 'GET' || headers['mcp-method'] === 'subscriptions/listen'

/**
 * `fetch` for one upstream. Its credential is put on at the last moment, here and nowhere else, and only toward its own
 * origin: a redirect may move the path (`/mcp` → `/mcp/` is common), never the host, and never turns a POST into a GET.
 */
function toTarget<A extends Asking, R extends Reply>(
  { endpoint, headers: own, renew }: UpstreamTarget,
  send: (url: URL, asked: A & AnswerBounds) => Promise<R>,
  maxBytes: number,
): (url: URL, asked: A) => Promise<R> {
  return async (url, asked) => {
    let at = url
    let renewed = false
    const bounds = { maxResponseBytes: staysOpen(asked) ? Number.MAX_SAFE_INTEGER : maxBytes, bodyTimeoutMs: dayMs }
    for (let hop = 0; hop <= maxRedirects; hop++) {
      if (at.origin !== endpoint.origin) throw upstreamError('The service redirects to another host.')
      const headers: Record<string, string> = { ...asked.headers }
      for (const [name, secret] of own) headers[name.toLowerCase()] = secret.reveal()
      const response = await send(at, { ...asked, ...bounds, headers })
      // It has not looked at the request, so once the credential is a newer one it is asked again, and no more than once.
      if (response.status === 401 && renew && !renewed) {
        renewed = await renew(headers['authorization'] ?? '')
        if (renewed) {
          await response.body?.cancel()
          hop--
          continue
        }
      }
      if (!redirects.includes(response.status)) return response
      const location = response.headers.get('location')
      await response.body?.cancel()
      if (location === null || (response.status < 307 && asked.method === 'POST'))
        throw upstreamError('The service redirects in a way that cannot be followed.')
      at = new URL(location, at)
    }
    throw upstreamError('The service redirects too often.')
  }
}

/** For the SDK, which opens connections and listens. */
export function targetFetch(target: UpstreamTarget, fetch: Fetch, maxBytes: number): Fetch {
  const send = toTarget<RequestInit & Asking, Response>(
    target,
    (url, init) => fetch(url, { ...init, redirect: 'manual' }),
    maxBytes,
  )
  return (url, init) => send(new URL(url), { ...init, headers: plain(init?.headers) } as RequestInit & Asking)
}

/** For what the gateway sends itself: every call. */
export const targetSend = (
  target: UpstreamTarget,
  send: Send,
  maxBytes: number,
): ((url: URL, asked: Asked) => Promise<Reply>) => toTarget<Asked, Reply>(target, send, maxBytes)

export const tooLarge = (): Error => upstreamError('The answer of the service is too large.')

/** Breaks an answer off at a size, except streams that are meant to stay open: they carry change events only. */
export function boundedFetch(fetch: Fetch, maxBytes: number): Fetch {
  return async (url, init) => {
    const response = await fetch(url, init)
    if (response.body === null || staysOpen({ method: init?.method, headers: plain(init?.headers) })) return response
    let seen = 0
    const meter = new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        seen += chunk.byteLength
        if (seen > maxBytes) controller.error(tooLarge())
        else controller.enqueue(chunk)
      },
    })
    const { status, statusText, headers } = response
    return new Response(response.body.pipeThrough(meter), { status, statusText, headers })
  }
}

/** The whole body as text, or an error once it is larger than it may be; the rest is then never read. */
export async function readText(response: Reply, maxBytes: number): Promise<string> {
  if (Number(response.headers.get('content-length')) > maxBytes) {
    await response.body?.cancel()
    throw tooLarge()
  }
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength
    if (size > maxBytes) throw tooLarge()
    chunks.push(chunk)
  }
  return new TextDecoder().decode(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks))
}

export const mediaType = (response: Reply): string =>
  (response.headers.get('content-type') ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? ''
