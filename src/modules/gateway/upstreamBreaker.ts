import {
  circuitBreaker,
  CircuitState,
  ConsecutiveBreaker,
  ExponentialBackoff,
  handleWhen,
  type CircuitBreakerPolicy,
} from 'cockatiel'
import { boundedCache } from '../../kernel/boundedCache.ts'
import { AppError } from '../../kernel/errors.ts'
import { Cancelled } from './upstreamErrors.ts'

const failuresInARow = 5
const firstPauseMs = 5000
const longestPauseMs = 60_000
const maxUpstreams = 10_000

const transportCodes = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'UND_ERR_SOCKET',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
])
/** What a proxy says for an upstream that it cannot reach. */
const proxyStatuses: readonly unknown[] = [502, 503, 504]

/** Whether a failure says that the upstream itself is away. What it answered, whatever that was, never does. */
export function isOutage(error: unknown): boolean {
  if (error instanceof AppError && error.code === 'UPSTREAM_TIMEOUT') return true
  if (error instanceof AppError && proxyStatuses.includes(error.extensions['upstreamStatus'])) return true
  let reason = error
  for (let depth = 0; depth < 8 && reason instanceof Error; depth++, reason = reason.cause)
    if ('code' in reason && transportCodes.has(String(reason.code))) return true
  return false
}

/** Settled, so that an answer that is an error counts as a sign of life. */
type Answer<T> = { value: T } | { error: unknown }

/** After some outages in a row an upstream is left alone for a while; then one call tries, and decides for all. */
export class Breakers {
  readonly #policies = boundedCache<CircuitBreakerPolicy>(maxUpstreams)

  /** Rejects at once while the upstream is left alone. */
  async run<T>(upstream: string, work: () => Promise<T>): Promise<T> {
    const policy = this.#policy(upstream)
    // Nobody waits for the one that tries: it may take as long as a call may take.
    if (policy.state === CircuitState.HalfOpen) throw leftAlone()
    const settled = await policy
      .execute(async (): Promise<Answer<T>> => {
        try {
          return { value: await work() }
        } catch (error) {
          if (isOutage(error) || error instanceof Cancelled) throw error
          return { error }
        }
      })
      .catch((error: unknown) => {
        throw error instanceof Error && 'isBrokenCircuitError' in error ? leftAlone() : error
      })
    if ('error' in settled) throw settled.error
    return settled.value
  }

  forget(upstream: string): void {
    this.#policies.delete(upstream)
  }

  #policy(upstream: string): CircuitBreakerPolicy {
    const known = this.#policies.get(upstream)
    if (known) return known
    const policy = circuitBreaker(handleWhen(isOutage), {
      breaker: new ConsecutiveBreaker(failuresInARow),
      halfOpenAfter: new ExponentialBackoff({ initialDelay: firstPauseMs, maxDelay: longestPauseMs }),
    })
    this.#policies.set(upstream, policy)
    return policy
  }
}

const leftAlone = (): AppError =>
  new AppError('UPSTREAM_ERROR', 'The service did not answer several times and is left alone for a moment.', {
    retryAfterSeconds: firstPauseMs / 1000,
  })
