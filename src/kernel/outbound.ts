import { lookup as systemLookup } from 'node:dns/promises'
import { isIP, type LookupFunction } from 'node:net'
import { Agent, buildConnector, fetch as undiciFetch, type Dispatcher } from 'undici'
import { addressRefused, addressRule, type AddressRule, type Scheme } from './addresses.ts'
import { AppError } from './errors.ts'
import {
  limitedBody,
  limitedDispatch,
  presented,
  timedOut,
  tooLarge,
  upstreamFailure,
  type Answer,
  type BodyLimits,
} from './outboundLimits.ts'
import { exchange, type Asked, type Reply } from './outboundExchange.ts'
import { firstHop, isRedirect, nextHop, type Hop } from './redirects.ts'

/** Every IP address of a name, in the order to try them. */
export type Resolve = (hostname: string) => Promise<readonly string[]>

export type OutboundOptions = {
  /** Networks that the operator opens: private addresses, and cleartext `http`. See `addressRule`. */
  allowedCidrs: readonly string[]
  /** Until a connection stands, name resolution and TLS included. */
  connectTimeoutMs: number
  /** From a standing connection until the response's headers. A hop takes at most this and `connectTimeoutMs`, waiting for a free connection included. */
  headersTimeoutMs: number
  /** Longest silence inside a response body while it is being read. */
  bodyTimeoutMs: number
  /** Cap on a response body, counted on the wire and again after decompression. */
  maxResponseBytes: number
  maxRedirects: number
  /** Connections to one origin at a time; further requests wait. A server-sent event stream holds one. */
  connectionsPerOrigin?: number
  /** Certificate authorities (PEM) to trust in place of the built-in ones. */
  trustedCas?: string[]
  resolve?: Resolve
}

/** What one call may set for itself, above or below the defaults; a long event stream needs both larger. */
export type CallLimits = Partial<BodyLimits>

/** Fits wherever a `typeof globalThis.fetch` is asked for. */
export type OutboundFetch = (input: string | URL | Request, init?: RequestInit & CallLimits) => Promise<Response>

export type Outbound = {
  /**
   * `fetch` through the platform's one door. Fails with UPSTREAM_ERROR or UPSTREAM_TIMEOUT, or with the signal's reason when aborted.
   * A body that is not wanted must be cancelled, or it holds its connection.
   */
  fetch: OutboundFetch
  /** One hop of the same, without the classes of `fetch`. Bounded by its signal alone once the headers are there. */
  exchange(url: string | URL, asked: Asked, limits?: Pick<CallLimits, 'maxResponseBytes'>): Promise<Reply>
  /** Ends the idle connections and breaks off what still runs: let callers finish first. */
  close(): Promise<void>
}

const resolveBySystem: Resolve = async (hostname) =>
  (await systemLookup(hostname, { all: true })).map(({ address }) => address)

/**
 * The platform's one door for outgoing HTTP. Tenants choose where it goes, so every address is judged at the moment it is
 * connected to, and the answer that was judged is the answer connected to: there is no second look-up for a name server to
 * change its mind in (DNS rebinding). Reads no proxy variables: a proxy would resolve names out of sight of this check.
 */
export function createOutbound(options: OutboundOptions): Outbound {
  const agent = new Agent({
    connect: pinnedConnector(options, addressRule(options.allowedCidrs)),
    headersTimeout: options.headersTimeoutMs,
    bodyTimeout: 0, // `limitedBody` keeps that time, call by call
    connections: options.connectionsPerOrigin ?? 64,
    pipelining: 1,
    allowH2: false,
  })

  const fetch: OutboundFetch = async (input, init = {}) => {
    const { maxResponseBytes = options.maxResponseBytes, bodyTimeoutMs = options.bodyTimeoutMs, ...request } = init
    const signal = request.signal ?? (input instanceof Request ? input.signal : null)
    signal?.throwIfAborted()
    const limits = { maxResponseBytes, bodyTimeoutMs }
    const deadlineMs = options.connectTimeoutMs + options.headersTimeoutMs
    const send = (hop: Hop) =>
      sendHop(hop, { dispatcher: limitedDispatch(agent, maxResponseBytes), deadlineMs, limits, signal })

    let hop = await firstHop(input, request)
    for (let redirects = 0; ; redirects++) {
      const response = await send(hop)
      const location = isRedirect(response.status) ? response.headers.get('location') : null
      if (location === null || request.redirect === 'manual') return presented(response, hop.url, redirects > 0)
      await response.body?.cancel()
      if (redirects >= options.maxRedirects || request.redirect === 'error')
        throw new AppError('UPSTREAM_ERROR', 'The upstream redirected too often.')
      hop = nextHop(hop, response.status, location)
    }
  }

  return {
    fetch,
    exchange: (url, asked, { maxResponseBytes = options.maxResponseBytes } = {}) => {
      const deadlineMs = options.connectTimeoutMs + options.headersTimeoutMs
      return exchange(url, asked, { agent, deadlineMs, maxResponseBytes })
    },
    close: () => agent.destroy(),
  }
}

type Connection = Pick<OutboundOptions, 'connectTimeoutMs' | 'trustedCas' | 'resolve'>

function pinnedConnector(
  { connectTimeoutMs, trustedCas, resolve = resolveBySystem }: Connection,
  permits: AddressRule,
): buildConnector.connector {
  const connectorFor = (scheme: Scheme) =>
    buildConnector({
      timeout: connectTimeoutMs,
      lookup: pinnedLookup(resolve, (address) => permits(address, scheme)),
      autoSelectFamily: true,
      // Said aloud so that NODE_TLS_REJECT_UNAUTHORIZED cannot switch it off.
      rejectUnauthorized: true,
      ...(trustedCas ? { ca: trustedCas } : {}),
    })
  const connectors = { 'http:': connectorFor('http:'), 'https:': connectorFor('https:') }

  return (target, callback) => {
    const scheme = target.protocol === 'https:' ? 'https:' : 'http:'
    // Sockets skip the look-up for a literal, so it is judged here; the URL parser has made every spelling canonical.
    if (isIP(target.hostname) !== 0 && !permits(target.hostname, scheme))
      return callback(addressRefused(`${scheme} to ${target.hostname}`), null)
    connectors[scheme](target, callback)
  }
}

const pinnedLookup =
  (resolve: Resolve, permits: (address: string) => boolean): LookupFunction =>
  (hostname, { all }, callback) => {
    const answer = (addresses: readonly string[]) => {
      const permitted = addresses.filter(permits).map((address) => ({ address, family: isIP(address) }))
      const [first] = permitted
      if (!first) callback(addressRefused(`${hostname} is at ${addresses.join(', ') || 'no address'}`), [])
      else if (all) callback(null, permitted)
      else callback(null, first.address, first.family)
    }
    resolve(hostname).then(answer, (error: unknown) =>
      callback(error instanceof Error ? error : new Error('Name resolution failed', { cause: error }), []),
    )
  }

type Sending = { dispatcher: Dispatcher; deadlineMs: number; limits: BodyLimits; signal: AbortSignal | null }

async function sendHop(hop: Hop, { dispatcher, deadlineMs, limits, signal }: Sending): Promise<Answer> {
  const failure = (error: unknown): unknown => (signal?.aborted ? signal.reason : upstreamFailure(error))
  // The client's own timers start when a request is written and again at every 1xx; this one bounds the whole wait.
  const deadline = new AbortController()
  const timer = setTimeout(() => deadline.abort(timedOut('no headers in time')), deadlineMs)
  try {
    const response = await undiciFetch(hop.url, {
      method: hop.method,
      headers: [...hop.headers],
      body: hop.body,
      redirect: 'manual',
      duplex: 'half',
      signal: signal ? AbortSignal.any([signal, deadline.signal]) : deadline.signal,
      dispatcher,
    })
    const { status, statusText, body } = response
    const headers = new Headers([...response.headers])
    if (hop.method !== 'HEAD' && Number(headers.get('content-length')) > limits.maxResponseBytes) {
      await body?.cancel()
      throw tooLarge()
    }
    return {
      status,
      statusText,
      headers,
      body: body && limitedBody(body as import('node:stream/web').ReadableStream<Uint8Array>, limits, failure),
    }
  } catch (error) {
    throw failure(error)
  } finally {
    clearTimeout(timer)
  }
}
