import { AppError } from '../../kernel/errors.ts'
import { resource } from '../../kernel/platform.ts'
import { throttle } from '../../kernel/throttle.ts'
import type { Passage } from './types.ts'

const callsPerService = throttle('service', (config) => ({
  limit: config.callsPerServicePerMinute,
  windowSeconds: 60,
  withoutStore: 'local',
}))

/** How many of a kind run at a time on this instance, by who runs them. */
class Running {
  readonly #counts = new Map<string, number>()

  /** Takes one place in each row, or none and throws. */
  enter(rows: readonly (readonly [name: string, limit: number])[]): () => void {
    const full = rows.find(([name, limit]) => limit > 0 && (this.#counts.get(name) ?? 0) >= limit)
    if (full)
      throw new AppError('RATE_LIMITED', 'Too many calls are running at once. Wait for one to end.', {
        extensions: { limit: { policy: full[0].split(' ', 1)[0], concurrent: full[1] } },
        retryAfterSeconds: 1,
      })
    for (const [name] of rows) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1)
    let left = false
    return () => {
      if (left) return
      left = true
      for (const [name] of rows) {
        const count = (this.#counts.get(name) ?? 1) - 1
        if (count > 0) this.#counts.set(name, count)
        else this.#counts.delete(name)
      }
    }
  }
}

/**
 * Lets calls in by key, user, service and organisation: so many at a time, and so many a minute to one service. Rates of
 * keys, users and organisations are charged by the edge, with everything else that they ask for.
 */
export const admission = resource((platform) => {
  const { config } = platform
  const calls = new Running()
  const streams = new Running()
  return {
    async call({ actor, orgId, serviceId }: Passage): Promise<() => void> {
      const leave = calls.enter([
        [`credential ${actor.credentialId}`, config.concurrentCallsPerCredential],
        [`user ${orgId} ${actor.userId}`, config.concurrentCallsPerUser],
        [`service ${serviceId}`, config.concurrentCallsPerService],
        [`organization ${orgId}`, config.concurrentCallsPerOrganization],
      ])
      try {
        await callsPerService(platform)?.consume(serviceId)
        return leave
      } catch (error) {
        leave()
        throw error
      }
    },
    stream: (credentialId: string): (() => void) =>
      streams.enter([[`credential ${credentialId}`, config.concurrentStreamsPerCredential]]),
  }
})
