import { addressRefused } from './addresses.ts'
import { AppError } from './errors.ts'

/** One request as it goes out: what a redirect turns into the next one. */
export type Hop = {
  url: URL
  method: string
  headers: Headers
  /** Bytes can be sent again; a stream only once. */
  body: Uint8Array | ReadableStream<Uint8Array> | null
}

const redirectStatuses = new Set([301, 302, 303, 307, 308])
export const isRedirect = (status: number): boolean => redirectStatuses.has(status)

/**
 * What may follow a redirect to another origin. A list of what to keep, not of what to drop: service tokens travel in headers
 * whose names the operator chooses, so no list of credential headers is ever complete, and a forgotten entry here costs a
 * header, not a secret.
 */
const crossOriginHeaders = ['accept', 'accept-language', 'mcp-protocol-version', 'user-agent']

/** RFC 9110 §7.6.1 and framing: they belong to one connection, and are ours to write. A caller's `host` would pick another virtual host. */
export const connectionHeaders = [
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]

const bodyHeaders = ['content-encoding', 'content-language', 'content-location', 'content-type']

/** A target that may be asked for at all; its address is judged later, when it is connected to. */
export function parseTarget(text: string, base?: URL): URL {
  if (!URL.canParse(text, base?.href)) throw addressRefused('not a URL')
  const url = new URL(text, base)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw addressRefused(`scheme ${url.protocol}`)
  if (url.username !== '' || url.password !== '') throw addressRefused('credentials in the URL')
  return url
}

/** The first hop of a fetch call, from the same arguments that `fetch` takes. */
export async function firstHop(input: string | URL | Request, init: RequestInit): Promise<Hop> {
  const url = parseTarget(input instanceof Request ? input.url : String(input))
  const given = init.body ?? (input instanceof Request ? input.body : null)
  const streams = typeof given === 'object' && given !== null && Symbol.asyncIterator in given
  const request = new Request(input, { ...init, signal: null, ...(streams ? { duplex: 'half' as const } : {}) })
  const headers = new Headers(request.headers)
  for (const name of connectionHeaders) headers.delete(name)
  const body = streams || !request.body ? request.body : new Uint8Array(await request.arrayBuffer())
  return { url, method: request.method, headers, body }
}

/**
 * The request that a redirect asks for, or a refusal:
 * - never from `https` to `http`;
 * - to another origin only GET and HEAD, with the safe headers alone; what a caller meant to do at one origin is done nowhere else;
 * - 301, 302 and 303 become a GET without a body, 307 and 308 repeat method and body.
 */
export function nextHop(hop: Hop, status: number, location: string): Hop {
  const url = parseTarget(location, hop.url)
  if (hop.url.protocol === 'https:' && url.protocol === 'http:') throw addressRefused('redirect from https to http')

  const reads = hop.method === 'GET' || hop.method === 'HEAD'
  const sameOrigin = url.origin === hop.url.origin
  if (!sameOrigin && !reads) throw addressRefused(`redirect of ${hop.method} to another origin`)
  const headers = sameOrigin ? new Headers(hop.headers) : safeHeaders(hop.headers)

  if (status === 307 || status === 308) {
    if (hop.body instanceof ReadableStream)
      throw new AppError('UPSTREAM_ERROR', 'The upstream redirected a request that cannot be repeated.')
    return { ...hop, url, headers }
  }
  for (const name of bodyHeaders) headers.delete(name)
  return { url, method: hop.method === 'HEAD' ? 'HEAD' : 'GET', headers, body: null }
}

function safeHeaders(headers: Headers): Headers {
  const kept = new Headers()
  for (const name of crossOriginHeaders) {
    const value = headers.get(name)
    if (value !== null) kept.set(name, value)
  }
  return kept
}
