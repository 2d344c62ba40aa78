import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { ConfigError, loadConfig } from '../../src/config.ts'
import { createKey, createService, password, seedOrganization } from '../harness/seed.ts'
import { createWorld, origin } from '../harness/world.ts'
import { startRecorder } from '../gateway/peers/recorder.ts'

const attribute = z.object({
  key: z.string(),
  value: z.union([
    z.object({ stringValue: z.string() }).transform(({ stringValue }) => stringValue),
    z.object({ intValue: z.union([z.number(), z.string()]) }).transform(({ intValue }) => Number(intValue)),
  ]),
})
const attributes = z.array(attribute).transform((all) => Object.fromEntries(all.map(({ key, value }) => [key, value])))
const span = z.object({
  traceId: z.string().regex(/^[0-9a-f]{32}$/),
  spanId: z.string().regex(/^[0-9a-f]{16}$/),
  parentSpanId: z.string().optional(),
  name: z.string(),
  kind: z.number(),
  attributes,
  status: z.object({ code: z.number().optional() }),
})
const exported = z.object({
  resourceSpans: z.array(
    z.object({ resource: z.object({ attributes }), scopeSpans: z.array(z.object({ spans: z.array(span) })) }),
  ),
})
type Span = z.infer<typeof span>
const [server, client] = [2, 3]

const toDo: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const each of toDo.splice(0).reverse()) await each()
})

async function open(listener: Parameters<typeof createServer>[1]): Promise<{ url: string; server: Server }> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  toDo.push(() => new Promise((resolve) => (server.close(resolve), server.closeAllConnections())))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server }
}

/** A collector of OTLP over HTTP, in JSON. */
async function startCollector() {
  const spans: Span[] = []
  const services = new Set<unknown>()
  const requests: { path: string | undefined; key: unknown; text: string }[] = []
  const { url } = await open((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString()
      requests.push({ path: request.url, key: request.headers['x-collector-key'], text })
      for (const { resource, scopeSpans } of exported.parse(JSON.parse(text)).resourceSpans) {
        services.add(resource.attributes['service.name'])
        for (const scope of scopeSpans) spans.push(...scope.spans)
      }
      response.setHeader('content-type', 'application/json').end('{}')
    })
  })
  const named = (name: string): Span[] => spans.filter((each) => each.name === name)
  return { url, spans, services, requests, named }
}

// eslint-disable-next-line no-secrets/no-secrets -- the trace id of the W3C's own example
const trace = { id: '0af7651916cd43dd8448eb211c80319c', parent: 'b7ad6b7169203331' }
const traceparent = `00-${trace.id}-${trace.parent}-01`
const canary = 'canary-argument-4711'

describe('traces', () => {
  it.each(['legacy', 'modern'] as const)(
    'go from a trusted proxy through the platform to an upstream (%s), and carry no secret',
    async (era) => {
      const collector = await startCollector()
      const upstream = await startRecorder(era)
      toDo.push(() => upstream.close())
      const world = await createWorld({
        OTEL_EXPORTER_OTLP_ENDPOINT: `${collector.url}/`,
        OTEL_EXPORTER_OTLP_HEADERS: 'X-Collector-Key=collector%20key',
        OTEL_SERVICE_NAME: 'front-door',
        TRUSTED_PROXIES: '192.0.2.1/32',
      })
      const org = await seedOrganization(world)
      const key = await createKey(world, org.developer, ['mcp:read', 'mcp:write'])
      await createService(world, org.admin, { slug: 'recorder', endpoint: upstream.url })
      const headers = { ...{ authorization: key.authorization }, 'content-type': 'application/json', accept: 'application/json, text/event-stream' } // prettier-ignore
      const call = (name: string, args: object, own: Record<string, string>) =>
        world.fetch(`/mcp/${org.slug}/recorder`, {
          method: 'POST',
          headers: { ...headers, ...own },
          body: JSON.stringify({
            jsonrpc: '2.0',
            id: 1,
            method: 'tools/call',
            params: {
              name,
              arguments: args,
              _meta: {
                traceparent: `00-${'c'.repeat(32)}-${'d'.repeat(16)}-01`,
                tracestate: 'c=1',
                baggage: 'user=ada',
              },
            },
          }),
        })
      const answered = await call('whoami', { n: 1 }, { traceparent, tracestate: 'vendor=1', baggage: 'user=ada' })
      expect(await answered.text()).toContain('nobody#1')
      await (await call('write', { secret: canary }, {})).text()
      const query = `query Named($slug: String!) { service(slug: $slug) { name } again: service(slug: "${canary}") { id } }`
      await world.graphql(query, { slug: canary }, org.admin)
      await world.graphql('query Refused { auditTrail(first: 1) { edges { node { id } } } }', {}, org.viewer)
      const sent = upstream.seen.filter(({ rpc }) => rpc === 'tools/call')
      const seen = JSON.stringify(upstream.seen)
      await world.close()

      // The requests: the first in the proxy's trace, the second in one of its own.
      const [first, second] = collector.named('POST /mcp/{organization}/{service}')
      expect(first).toMatchObject({ traceId: trace.id, parentSpanId: trace.parent, kind: server })
      expect(first?.attributes).toMatchObject({ 'http.response.status_code': 200, 'http.request.method': 'POST' })
      expect(second?.traceId).not.toBe(trace.id)
      expect(second?.parentSpanId ?? '').toBe('')

      // Each call is a child of its request, and the upstream is told of it and of nothing else.
      const [whoami] = collector.named('tools/call whoami')
      const [write] = collector.named('tools/call write')
      expect(whoami).toMatchObject({ traceId: trace.id, parentSpanId: first?.spanId, kind: client })
      expect(whoami?.attributes).toEqual({ 'mcp.method.name': 'tools/call', 'gen_ai.tool.name': 'whoami', 'mcp_platform.service': 'recorder', 'mcp_platform.outcome': 'ok' }) // prettier-ignore
      expect(write).toMatchObject({ traceId: second?.traceId, parentSpanId: second?.spanId })
      const parents = [whoami, write].map((each) => `00-${each?.traceId}-${each?.spanId}-01`)
      expect(sent.map((each) => each.headers['traceparent'])).toEqual(parents)
      expect(sent.map(({ meta }) => (meta as Record<string, unknown>)['traceparent'])).toEqual(parents)
      expect(seen).not.toMatch(/baggage|tracestate|=ada|cccccc/)

      // An operation is a child of its request, with its cost, its statements and the code of its error.
      const operations = collector.named('graphql')
      const of = (name: string) => operations.find((each) => each.attributes['graphql.operation.name'] === name)
      expect(of('Named')?.attributes).toMatchObject({ 'graphql.operation.type': 'query' })
      expect(of('Named')?.attributes['mcp_platform.cost']).toBeGreaterThan(0)
      expect(of('Named')?.attributes['mcp_platform.statements']).toBeGreaterThan(0)
      expect(of('Refused')?.attributes['error.type']).toBe('FORBIDDEN')
      const requests = collector.named('POST /graphql')
      expect(requests.map(({ spanId }) => spanId)).toContain(of('Named')?.parentSpanId)

      expect([...collector.services]).toEqual(['front-door'])
      for (const { path, key: own } of collector.requests) expect([path, own]).toEqual(['/v1/traces', 'collector key'])
      const everything = collector.requests.map(({ text }) => text).join('\n')
      const secrets = [canary, password, key.authorization.slice(7), org.admin.authorization.slice(7), org.admin.email, org.admin.userId, org.slug, 'collector key'] // prettier-ignore
      for (const secret of secrets) expect(everything).not.toContain(secret)
    },
  )

  it('begin anew where the peer is not trusted, or says nothing that could be a trace', async () => {
    const collector = await startCollector()
    const world = await createWorld({
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${collector.url}/otlp`,
      TRUSTED_PROXIES: '192.0.2.1/32',
    })
    const ask = (given: string, remoteAddress: string) =>
      world.app.fetch(new Request(`${origin}/healthz`, { headers: { traceparent: given } }), { remoteAddress })
    await ask(traceparent, '198.51.100.7')
    for (const bad of [
      `00-${'0'.repeat(32)}-${trace.parent}-01`,
      'x',
      `${traceparent}-more`,
      `ff${traceparent.slice(2)}`,
    ])
      await ask(bad, '192.0.2.1')
    await ask(traceparent, '192.0.2.1')
    await world.close()
    expect(collector.requests.map(({ path }) => path)).toEqual(['/otlp'])
    const parents = collector.named('GET /healthz').map(({ parentSpanId = '' }) => parentSpanId)
    expect(parents).toEqual(['', '', '', '', '', trace.parent])
  })

  it('follow the sampler: none are kept, yet the proxy’s decision is', async () => {
    const collector = await startCollector()
    const world = await createWorld({
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
      OTEL_TRACES_SAMPLER_ARG: '0',
      TRUSTED_PROXIES: '192.0.2.1/32',
    })
    await world.fetch('/healthz')
    await world.fetch('/healthz', { headers: { traceparent } })
    await world.fetch('/healthz', { headers: { traceparent: traceparent.replace(/01$/, '00') } })
    await world.close()
    expect(collector.spans.map(({ parentSpanId }) => parentSpanId)).toEqual([trace.parent])
  })

  it('that nobody takes fail no request, and are dropped', async () => {
    let asked = 0
    // It takes what comes and never answers.
    const { url } = await open((request) => void (request.resume(), (asked += 1)))
    const world = await createWorld({ OTEL_EXPORTER_OTLP_ENDPOINT: url })
    for (let n = 0; n < 5000; n += 1) expect((await world.fetch('/healthz')).status).toBe(200)
    await world.close()
    expect(asked).toBeLessThanOrEqual(2)
  })

  it('say once in the log that the collector is away', async () => {
    const { url, server: collector } = await open((_, response) => void response.writeHead(400).end(canary))
    const world = await createWorld({ OTEL_EXPORTER_OTLP_ENDPOINT: url })
    for (let n = 0; n < 1200; n += 1) await world.fetch('/healthz')
    await world.close()
    expect(collector.listening).toBe(true)
    expect(world.logged.filter((line) => line.includes('takes no traces'))).toHaveLength(1)
    expect(world.logged.join('\n')).not.toContain(canary)
  })

  it('are not there unless a collector is named, and a client’s own go on without its baggage', async () => {
    const upstream = await startRecorder('modern')
    toDo.push(() => upstream.close())
    const world = await createWorld()
    toDo.push(() => world.close())
    expect(world.platform.tracing).toBeNull()
    const org = await seedOrganization(world)
    await createService(world, org.admin, { slug: 'recorder', endpoint: upstream.url })
    const call = (given: object) =>
      world.fetch(`/mcp/${org.slug}/recorder`, {
        method: 'POST',
        headers: { authorization: org.developer.authorization, 'content-type': 'application/json', accept: 'application/json, text/event-stream' }, // prettier-ignore
        body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'whoami', arguments: { n: 1 }, _meta: given } }), // prettier-ignore
      })
    await (await call({ traceparent, tracestate: 'vendor=ada', baggage: 'user=ada' })).text()
    await (await call({ traceparent: 'ada', baggage: 'user=ada' })).text()
    const sent = upstream.seen.filter(({ rpc }) => rpc === 'tools/call')
    expect(sent.map(({ meta }) => (meta as Record<string, unknown>)['traceparent'])).toEqual([traceparent, undefined])
    expect(JSON.stringify(sent)).not.toMatch(/baggage|tracestate|=ada/)
  })

  it('are configured by the standard settings, and a wrong one is said at the start', () => {
    const settings = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' }
    expect(loadConfig({ OTEL_SERVICE_NAME: 'x' }).traces).toBeNull()
    expect(loadConfig({ ...settings, OTEL_EXPORTER_OTLP_HEADERS: 'a=b%2C, C = d=e' }).traces).toEqual({
      endpoint: 'http://collector:4318/v1/traces',
      headers: { a: 'b,', c: 'd=e' },
      serviceName: 'mcp-platform',
      sampler: 'parentbased_always_on',
      samplerArgument: 1,
    })
    for (const wrong of [
      { OTEL_EXPORTER_OTLP_HEADERS: 'a' },
      { OTEL_EXPORTER_OTLP_HEADERS: 'a=%' },
      { OTEL_TRACES_SAMPLER: 'some' },
      { OTEL_TRACES_SAMPLER_ARG: '2' },
      { OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4317' },
    ])
      expect(() => loadConfig({ ...settings, ...wrong })).toThrow(ConfigError)
  })
})
