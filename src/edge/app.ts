import { fileURLToPath } from 'node:url'
import { Response } from '@whatwg-node/fetch'
import type { GraphQLSchema } from 'graphql'
import { provideSchema } from '../graphql/registry.ts'
import { isMember, system, type Actor, type Member, type Origin } from '../kernel/actor.ts'
import { AppError, badInput, notFound } from '../kernel/errors.ts'
import { metrics } from '../kernel/metrics.ts'
import { closeResources, type Platform } from '../kernel/platform.ts'
import { isWithin } from '../kernel/source.ts'
import type { Piece } from '../kernel/tracing.ts'
import { gateway, gatheringAt, passageTo } from '../modules/gateway/passage.ts'
import { organizationSlugOf } from '../modules/organizations/queries.ts'
import { keyring } from '../modules/sessions/keyring.ts'
import { authenticate, forget, recall } from './authenticate.ts'
import { readBody } from './body.ts'
import { exported, exportPath } from './exports.ts'
import { errorResponse, report, translate } from './failures.ts'
import { createGraphQL } from './graphql.ts'
import { createGraphiql } from './graphiql.ts'
import { secure } from './headers.ts'
import { leakReport } from './leakReports.ts'
import { load } from './load.ts'
import { admitted, charge, chargeMore, limitFields, mcpCallCost } from './limits.ts'
import { originReader } from './origin.ts'
import { serviceConnectionPage } from './serviceConnection.ts'
import { assertOwnOrigin, challenge, mcpPath, resourceMetadata, type McpPath } from './protectedResource.ts'

type Route = { request: Request; url: URL; origin: Origin }

export type App = {
  /** Answers one request; never throws. `remoteAddress` is the peer's, before any proxy is believed. */
  fetch(request: Request, peer?: { remoteAddress?: string | null }): Promise<Response>
  /** From now on `/readyz` says no, so that a balancer looks elsewhere; requests are still answered. */
  drain(): void
  /** What the process has taken on; whoever listens asks it before a request comes in. */
  readonly load: ReturnType<typeof load>
  close(): Promise<void>
}

const json = (value: unknown, headers: Record<string, string> = {}): Response =>
  new Response(JSON.stringify(value), { headers: { 'Content-Type': 'application/json; charset=utf-8', ...headers } })

const only = (request: Request, ...methods: string[]): void => {
  if (!methods.includes(request.method)) throw new MethodNotAllowed(methods)
}

class MethodNotAllowed extends Error {
  readonly methods: string[]
  constructor(methods: string[]) {
    super('method not allowed')
    this.methods = methods
  }
}

const wantsPage = (request: Request): boolean =>
  request.method === 'GET' &&
  (request.headers.get('accept') ?? '').split(',').some((type) => type.trim().startsWith('text/html'))

/** The path without what is in it of a tenant. */
function routeOf(path: string): string {
  const endpoint = mcpPath(path)
  if (!endpoint) return knownRoutes.has(path) ? path : '/*'
  const { service, collection } = endpoint
  return `/mcp/{organization}${service ? '/{service}' : collection ? '/collections/{collection}' : ''}`
}
const knownRoutes = new Set(['/', '/graphql', '/healthz', '/readyz', '/leak-reports', '/.well-known/jwks.json'])

const doorOf = (path: string): string => (path === '/graphql' ? 'graphql' : path.startsWith('/mcp/') ? 'mcp' : 'other')

/** The perimeter: every door of the platform, one request at a time. */
export function createApp(platform: Platform, schema: GraphQLSchema): App {
  const { config, log } = platform
  provideSchema(platform, schema)
  const graphql = createGraphQL(platform, schema)
  const graphiql = createGraphiql({ directory: fileURLToPath(new URL('../../dist/graphiql', import.meta.url)) })
  // Every request's line has these few fields, none of them a secret: looking through them for names of secrets took a tenth of a request.
  const accessLog = log.child({}, { redact: [] })
  const originOf = originReader(config.trustedProxies)
  let draining = false

  async function mcp({ request, origin }: Route, endpoint: McpPath): Promise<Response> {
    only(request, 'GET', 'POST', 'DELETE')
    assertOwnOrigin(platform.publicUrl, request)
    const { at, actor } = await arriving(() => arrive({ request, origin }, endpoint))
    const text = request.method === 'POST' ? await readBody(request, config.bodyLimitBytes) : ''
    return gateway(platform).handle(at, request, text, {
      charge: (messages) => chargeMore(platform, actor, messages, mcpCallCost),
    })
  }

  /** An MCP request is work in hand until its way is found; what it then waits for, an upstream or news, is not ours to do. */
  async function arriving<T>(work: () => Promise<T>): Promise<T> {
    load(platform).begin()
    try {
      return await work()
    } finally {
      load(platform).end()
    }
  }

  /** A key that this instance knows is confirmed by the statement that finds its service, and needs none before. */
  async function arrive({ request: { headers }, origin }: Pick<Route, 'request' | 'origin'>, endpoint: McpPath) {
    const known = recall(platform, headers, origin)
    if (known && endpoint.service && (await mayEnter(known, endpoint)))
      try {
        return await place(await inRound(admitted(platform, origin, Promise.resolve(known))), endpoint)
      } catch (error) {
        if (!(error instanceof AppError) || error.code !== 'UNAUTHENTICATED') throw error
      }
    if (known) forget(platform, headers)
    return place(await inRound(admitted(platform, origin, authenticate(platform, headers, origin))), endpoint)
  }

  async function inRound(admission: Promise<Actor>): Promise<Actor> {
    const actor = await admission
    if (isMember(actor)) await load(platform).round(actor.orgId)
    return actor
  }

  const mayEnter = async (actor: Member, { organization }: McpPath): Promise<boolean> =>
    actor.scopes.includes('mcp:read') && organization === (await organizationSlugOf(platform, actor).catch(() => null))

  /** Where a caller is going, if they may: the database has confirmed the credential when this resolves. */
  async function place(actor: Actor, { organization, service, collection }: McpPath) {
    if (!isMember(actor)) throw new AppError('UNAUTHENTICATED', 'Send an API key or an access token.')
    if (!actor.scopes.includes('mcp:read'))
      throw new AppError('FORBIDDEN', 'Your credential does not permit this.', {
        extensions: { requires: { scopes: ['mcp:read'] } },
      })
    if (organization !== (await organizationSlugOf(platform, actor))) throw notFound('service')
    await charge(platform, actor, mcpCallCost)
    const at = service ? await passageTo(platform, actor, service) : await gatheringAt(platform, actor, collection)
    return { at, actor }
  }

  async function ready(): Promise<Response> {
    if (draining) throw new AppError('SERVICE_UNAVAILABLE', 'Stopping.')
    try {
      await platform.database.ping(system())
    } catch (cause) {
      throw new AppError('SERVICE_UNAVAILABLE', 'The database does not answer.', { cause })
    }
    return json({ status: 'ready' })
  }

  async function route(at: Route): Promise<Response> {
    const { request, url, origin } = at
    const { pathname } = url
    if (pathname === '/graphql') {
      if (wantsPage(request) && !url.search) return graphiql.page()
      only(request, 'GET', 'POST')
      return graphql(request, url, origin)
    }
    const records = exportPath(pathname)
    if (records) {
      only(request, 'GET')
      const actor = await admitted(platform, origin, authenticate(platform, request.headers, origin))
      return exported(platform, actor, records, url)
    }
    const endpoint = mcpPath(pathname)
    if (endpoint) return mcp(at, endpoint)
    if (pathname === '/leak-reports' && config.leakReportKeys) {
      only(request, 'POST')
      return leakReport(platform, request, origin)
    }
    only(request, 'GET', 'HEAD')
    if (pathname === '/healthz') return json({ status: 'ok' })
    if (pathname === '/readyz') return ready()
    if (pathname === '/.well-known/jwks.json')
      return json(await keyring(platform).jwks(), { 'Cache-Control': 'public, max-age=300' })
    const metadata = resourceMetadata(platform.publicUrl, pathname)
    if (metadata) return json(metadata)
    const connecting = serviceConnectionPage(platform, url)
    if (connecting) return connecting
    if (pathname === '/') return new Response(null, { status: 302, headers: { Location: '/graphql' } })
    const asset = graphiql.asset(pathname, request.headers)
    if (asset) return asset
    throw notFound('page')
  }

  /** A request's span. A `traceparent` is believed of a trusted proxy alone: anybody else's could join or fill others' traces. */
  function traced({ request, url, origin }: Route, remoteAddress: string | null): Piece | undefined {
    if (!platform.tracing) return undefined
    const { method } = request
    const route = routeOf(url.pathname)
    const trusted = isWithin({ ip: remoteAddress }, config.trustedProxies)
    const attributes = {
      'http.request.method': method,
      'http.route': route,
      'mcp_platform.request_id': origin.requestId,
    }
    return platform.tracing.begin(
      origin,
      `${method} ${route}`,
      attributes,
      trusted ? request.headers.get('traceparent') : null,
    )
  }

  function failed(thrown: unknown, { request, url, origin }: Route): Response {
    if (thrown instanceof MethodNotAllowed) {
      const Allow = thrown.methods.join(', ')
      return errorResponse(new AppError('METHOD_NOT_ALLOWED', `Send ${Allow}.`), origin.requestId, { Allow })
    }
    const error = translate(thrown)
    report(log, origin.requestId, error)
    const presented = request.headers.has('authorization') || request.headers.has('x-api-key')
    return errorResponse(error, origin.requestId, challenge(platform.publicUrl, url.pathname, error, presented))
  }

  async function answer(at: Route, remoteAddress: string | null): Promise<Response> {
    const started = performance.now()
    const { request, url, origin } = at
    const span = traced(at, remoteAddress)
    const response = await route(at)
      .catch((thrown: unknown) => failed(thrown, at))
      .finally(() => load(platform).release(origin))
    secure(response, origin.requestId)
    for (const [name, value] of Object.entries(limitFields(origin))) response.headers.set(name, value)
    const { requestId, ip } = origin
    const durationMs = Math.round(performance.now() - started)
    metrics(platform)?.answered(doorOf(url.pathname), response.status, performance.now() - started)
    span?.end({ 'http.response.status_code': response.status }, response.status >= 500 ? String(response.status) : null)
    accessLog.info(
      { requestId, method: request.method, path: url.pathname, status: response.status, durationMs, ip },
      'request',
    )
    return response
  }

  /** For what comes to no route: a request that is none, and a defect of the perimeter itself. */
  function refused(thrown: unknown, { requestId }: Origin): Response {
    const error = translate(thrown)
    report(log, requestId, error)
    const response = errorResponse(error, requestId)
    secure(response, requestId)
    return response
  }

  return {
    async fetch(request, peer = {}) {
      const remoteAddress = peer.remoteAddress ?? null
      const origin = originOf(request, remoteAddress)
      try {
        // RFC 9112, 3.2: a Host that is none makes the request a bad one.
        if (!URL.canParse(request.url)) throw badInput([{ path: ['host'], message: 'expected a host and a path' }])
        return await answer({ request, url: new URL(request.url), origin }, remoteAddress)
      } catch (thrown) {
        return refused(thrown, origin)
      }
    },
    load: load(platform),
    drain: () => void (draining = true),
    close: async () => {
      await closeResources(platform)
      await platform.outbound.close()
      await platform.database.close()
      await platform.tracing?.close()
    },
  }
}
