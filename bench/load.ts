import { Pool } from 'undici'

/** One kind of request; the bodies and headers of its callers take turns. */
export type Target = {
  origin: string
  method: 'GET' | 'POST'
  calls: { path: string; headers: Record<string, string>; body?: string }[]
}

export type Slice = {
  requestsPerSecond: number
  p50Ms: number
  p99Ms: number
  answers: number
  failures: number
  /** Of the first answer that was not a good one. */
  failure: string | null
}

type Order = { id: number; target: Target; connections: number; durationMs: number }

const percentile = (sorted: Float64Array, part: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN

const pools = new Map<string, Pool>()

async function run({ target, connections, durationMs }: Order): Promise<Slice> {
  const pool = pools.get(target.origin) ?? new Pool(target.origin, { connections, pipelining: 1 })
  pools.set(target.origin, pool)
  const times: number[] = []
  let failures = 0
  let failure: string | null = null
  let turn = 0
  const started = performance.now()
  const until = started + durationMs
  const one = async (): Promise<void> => {
    while (performance.now() < until) {
      const call = target.calls[(turn += 1) % target.calls.length]
      if (!call) return
      const sent = performance.now()
      const { statusCode, body } = await pool.request({ method: target.method, ...call, body: call.body ?? null })
      const text = await body.text()
      times.push(performance.now() - sent)
      if (statusCode === 200 && !text.includes('"errors"')) continue
      failures += 1
      failure ??= `${statusCode} ${text.slice(0, 300)}`
    }
  }
  await Promise.all(Array.from({ length: connections }, one))
  const seconds = (performance.now() - started) / 1000
  const sorted = Float64Array.from(times).sort()
  return {
    requestsPerSecond: times.length / seconds,
    p50Ms: percentile(sorted, 0.5),
    p99Ms: percentile(sorted, 0.99),
    answers: times.length,
    failures,
    failure,
  }
}

// The load generator is a process of its own, so that it does not share an event loop with anything it measures.
process.on('message', (order: Order) => {
  run(order).then(
    (slice) => process.send?.({ id: order.id, slice }),
    (error: unknown) => process.send?.({ id: order.id, error: String(error) }),
  )
})
