import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import { resource, type Platform } from './platform.ts'

/** What one instance counts for Prometheus. No name, id or address of a tenant is a label. */
class Metrics {
  readonly registry = new Registry()
  readonly #requests: Counter<'door' | 'status'>
  readonly #durations: Histogram<'door'>
  readonly #refused: Counter<'reason'>

  constructor({ database, hasher }: Platform) {
    const registers = [this.registry]
    collectDefaultMetrics({ register: this.registry })
    this.#requests = new Counter({ name: 'mcp_requests_total', help: 'Requests answered, by door and HTTP status.', labelNames: ['door', 'status'], registers }) // prettier-ignore
    this.#durations = new Histogram({ name: 'mcp_request_duration_seconds', help: 'Time to the head of the answer.', labelNames: ['door'], buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30], registers }) // prettier-ignore
    this.#refused = new Counter({ name: 'mcp_refused_total', help: 'Requests refused by a limit (its name) or by load (shed).', labelNames: ['reason'], registers }) // prettier-ignore
    new Gauge({ name: 'mcp_bcrypt_waiting', help: 'Hashes that wait for their turn.', registers, collect() { this.set(hasher.waiting) } }) // prettier-ignore
    const gauge = (name: string, help: string, read: (load: ReturnType<typeof database.load>[number]) => number) =>
      new Gauge({ name, help, labelNames: ['role'], registers, collect() { for (const load of database.load()) this.set({ role: load.role }, read(load)) } }) // prettier-ignore
    gauge('mcp_database_busy', 'Database connections at work.', ({ taken }) => taken)
    gauge('mcp_database_waiting', 'Statements that wait for a database connection.', ({ waiting }) => waiting)
  }

  answered(door: string, status: number, durationMs: number): void {
    this.#requests.inc({ door, status: String(status) })
    this.#durations.observe({ door }, durationMs / 1000)
  }

  refused(reason: string): void {
    this.#refused.inc({ reason })
  }
}

const made = resource((platform) => ({
  metrics: platform.config.metricsPort === undefined ? null : new Metrics(platform),
}))

/** The metrics of an instance; null where none are served, so that nothing is counted for nobody. */
export const metrics = (platform: Platform): Metrics | null => made(platform).metrics
