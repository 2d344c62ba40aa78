import { LRUCache } from 'lru-cache'

/**
 * The most recently used so many values, each for `ttlMs` at most. Its room grows as it fills: a `max` of 100,000 would
 * set 3 MB aside at once and take 25 ms for it, and a platform has many of them.
 */
export const boundedCache = <Value extends NonNullable<unknown>>(entries: number, ttlMs = 0): LRUCache<string, Value> =>
  new LRUCache({ maxSize: entries, sizeCalculation: () => 1, ttl: ttlMs })
