import { isSpanContextValid, type Attributes, type Span, type SpanContext, type Tracer } from '@opentelemetry/api'
import type { SpanExporter } from '@opentelemetry/sdk-trace'
import type { Config } from '../config.ts'
import type { Origin } from './actor.ts'
import type { Log } from './log.ts'

const longestStopMs = 3000

/** A piece of a request's work, as a span. */
export type Piece = {
  /** Continues the trace elsewhere (W3C Trace Context): ids and the sampling decision, nothing of the caller. */
  readonly traceparent: string
  /** `failure` is a code, never a message. */
  end(attributes: Attributes, failure?: string | null): void
}

type Kinds = typeof import('@opentelemetry/api').SpanKind
type Api = typeof import('@opentelemetry/api')

const wellFormed = /^00-(?<traceId>[0-9a-f]{32})-(?<spanId>[0-9a-f]{16})-(?<flags>[0-9a-f]{2})$/

function contextOf(traceparent: string | null): SpanContext | null {
  const { traceId = '', spanId = '', flags = '0' } = wellFormed.exec(traceparent ?? '')?.groups ?? {}
  const context = { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & 1, isRemote: true }
  return traceId && isSpanContextValid(context) ? context : null
}

const written = ({ traceId, spanId, traceFlags }: SpanContext): string => `00-${traceId}-${spanId}-0${traceFlags & 1}`

/**
 * The traces of one instance: a span for each request, and one for each piece of its work, which is found by the
 * request's origin. Attributes are names, counts and codes; what a caller sent is in none of them.
 */
export class Tracing {
  readonly #api: Api
  readonly #tracer: Tracer
  readonly #shutdown: () => Promise<void>
  readonly #requests = new WeakMap<Origin, Span>()

  constructor(api: Api, tracer: Tracer, shutdown: () => Promise<void>) {
    this.#api = api
    this.#tracer = tracer
    this.#shutdown = shutdown
  }

  /** Begins the span of a request; `parent` is a `traceparent` that is believed. */
  begin(origin: Origin, name: string, attributes: Attributes, parent: string | null): Piece {
    const { ROOT_CONTEXT, SpanKind, trace } = this.#api
    const remote = contextOf(parent)
    const context = remote ? trace.setSpanContext(ROOT_CONTEXT, remote) : ROOT_CONTEXT
    const span = this.#tracer.startSpan(name, { kind: SpanKind.SERVER, attributes }, context)
    this.#requests.set(origin, span)
    return this.#piece(span)
  }

  /** Begins a piece of the work of the request that has this origin; for work of no request, a trace of its own. */
  piece(origin: Origin, kind: keyof Kinds, name: string, attributes: Attributes): Piece {
    const { ROOT_CONTEXT, SpanKind, trace } = this.#api
    const request = this.#requests.get(origin)
    const context = request ? trace.setSpan(ROOT_CONTEXT, request) : ROOT_CONTEXT
    return this.#piece(this.#tracer.startSpan(name, { kind: SpanKind[kind], attributes }, context))
  }

  #piece(span: Span): Piece {
    return {
      traceparent: written(span.spanContext()),
      end: (attributes, failure) => {
        span.setAttributes(attributes)
        if (failure) span.setAttribute('error.type', failure).setStatus({ code: this.#api.SpanStatusCode.ERROR })
        span.end()
      },
    }
  }

  /** Sends what is left, as far as the collector takes it in time. */
  async close(): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, longestStopMs)))
    await Promise.race([this.#shutdown().catch(() => undefined), late])
    clearTimeout(timer)
  }
}

/** Says once that the collector takes nothing, and once that it does again; the exporter's own errors quote its answers. */
function watched(exporter: SpanExporter, log: Log): SpanExporter {
  let well = true
  return {
    export: (spans, done) =>
      exporter.export(spans, (result) => {
        const ok = result.error === undefined && Number(result.code) === 0
        if (ok && !well) log.info('traces are taken again')
        if (!ok && well) log.warn({ reason: result.error?.name }, 'the collector takes no traces')
        well = ok
        done(result)
      }),
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  }
}

/** Loads OpenTelemetry and exports to the configured collector; null where there is none, and then nothing is loaded. */
export async function openTracing({ traces }: Config, log: Log): Promise<Tracing | null> {
  if (!traces) return null
  const [api, sdk, { OTLPTraceExporter }, { resourceFromAttributes }] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/sdk-trace'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/resources'),
  ])
  const { endpoint: url, headers, serviceName, sampler: how, samplerArgument } = traces
  const own = how.endsWith('traceidratio')
    ? new sdk.TraceIdRatioBasedSampler(samplerArgument)
    : how.endsWith('always_off')
      ? new sdk.AlwaysOffSampler()
      : new sdk.AlwaysOnSampler()
  const exporter = new OTLPTraceExporter({ url, headers, timeoutMillis: 10_000, concurrencyLimit: 2 })
  const provider = new sdk.TracerProvider({
    resource: resourceFromAttributes({ 'service.name': serviceName }),
    sampler: how.startsWith('parentbased_') ? new sdk.ParentBasedSampler({ root: own }) : own,
    spanLimits: { attributeValueLengthLimit: 200 },
    // Bounded: what a collector does not take in time is dropped, never waited for.
    spanProcessors: [new sdk.BatchSpanProcessor({ exporter: watched(exporter, log), maxQueueSize: 2048 })],
  })
  return new Tracing(api, provider.getTracer('mcp-platform'), () => provider.shutdown())
}
