import { Redis } from 'ioredis'
import {
  RateLimiterMemory,
  RateLimiterPostgres,
  RateLimiterRedis,
  type RateLimiterAbstract,
  type RateLimiterRes,
} from 'rate-limiter-flexible'
import { AppError } from './errors.ts'
import { resource, type Platform } from './platform.ts'

/**
 * What becomes of a limit while the shared store does not answer.
 * - `local`: this instance counts on alone, so N instances together admit N times as much, and nobody is turned away.
 * - `refuse`: answered with 503, for verbs that an attacker would gain from and that nobody misses for a while.
 */
export type WithoutStore = 'local' | 'refuse'

export type Count = { total: number; msLeft: number }

type Store = { limiter: RateLimiterAbstract; ready: () => Promise<void>; close: () => void }

// The counters only count; who is over which limit is decided by their readers.
const unlimited = { points: Number.MAX_SAFE_INTEGER, duration: 60 }
const redisPatienceMs = 2000

function redisStore(url: string, keyPrefix: string): Store {
  const client = new Redis(url, {
    connectTimeout: redisPatienceMs,
    commandTimeout: redisPatienceMs,
    maxRetriesPerRequest: 1,
    retryStrategy: (times: number) => Math.min(100 * times, redisPatienceMs),
  })
  // Each failed command reports itself; an error without a listener would end the process.
  client.on('error', () => {})
  const opened = new Promise<void>((resolve) => {
    client.once('ready', resolve)
    client.once('close', resolve)
  })
  return {
    limiter: new RateLimiterRedis({ storeClient: client, keyPrefix, rejectIfRedisNotReady: true, ...unlimited }),
    ready: () => opened,
    close: () => client.disconnect(),
  }
}

const open = Promise.resolve()

function postgresStore({ database }: Platform, keyPrefix: string): Store {
  const storeClient = { query: (statement: Parameters<typeof database.count>[0]) => database.count(statement) }
  const table = { tableName: 'throttle_counters', tableCreated: true, clearExpiredByTimeout: true }
  const limiter = new RateLimiterPostgres({ storeClient, storeType: 'client', ...table, keyPrefix, ...unlimited })
  return { limiter, ready: () => open, close: () => {} }
}

function storeOf(platform: Platform): Store {
  const { redisUrl, redisKeyPrefix, databaseUrl } = platform.config
  if (redisUrl) return redisStore(redisUrl, `${redisKeyPrefix}throttle`)
  if (databaseUrl) return postgresStore(platform, 'throttle')
  return { limiter: new RateLimiterMemory(unlimited), ready: () => open, close: () => {} }
}

/** Named counters that end by themselves: in memory for one process, in Redis or PostgreSQL for many that behave as one. */
export class Counters {
  readonly #platform: Platform
  readonly #store: Store
  readonly #local = new RateLimiterMemory(unlimited)
  #warnedAt = Number.NEGATIVE_INFINITY

  constructor(platform: Platform) {
    this.#platform = platform
    this.#store = storeOf(platform)
  }

  async #ask<T>(without: WithoutStore, question: (limiter: RateLimiterAbstract) => Promise<T>): Promise<T> {
    try {
      await this.#store.ready()
      return await question(this.#store.limiter)
    } catch (cause) {
      if (performance.now() - this.#warnedAt > 10_000) {
        this.#warnedAt = performance.now()
        this.#platform.log.warn({ err: cause }, 'the shared counters do not answer')
      }
      if (without === 'local') return question(this.#local)
      throw new AppError('SERVICE_UNAVAILABLE', 'This is not possible at the moment. Try again later.', { cause })
    }
  }

  /** Adds to a counter, which ends `seconds` after its first addition. Several at once are counted one by one. */
  async add(key: string, points: number, seconds: number, without: WithoutStore): Promise<Count> {
    const counted = await this.#ask(without, (limiter) => limiter.penalty(key, points, { customDuration: seconds }))
    return { total: counted.consumedPoints, msLeft: counted.msBeforeNext }
  }

  async get(key: string, without: WithoutStore): Promise<Count | null> {
    const found = await this.#ask<RateLimiterRes | null>(without, (limiter) => limiter.get(key))
    return found && found.msBeforeNext > 0 ? { total: found.consumedPoints, msLeft: found.msBeforeNext } : null
  }

  async remove(key: string, without: WithoutStore): Promise<void> {
    await this.#ask(without, (limiter) => limiter.delete(key))
  }

  close(): void {
    this.#store.close()
  }
}

export const counters = resource((platform) => new Counters(platform))
