import { AppError } from '../../kernel/errors.ts'
import { wireError } from './relayErrors.ts'
import type { Gathered, Passage } from './types.ts'
import { abandonable } from './upstreamDeadline.ts'
import { Cancelled, upstreamTimeout } from './upstreamErrors.ts'

/** How many services are asked at the same time on behalf of one request. */
const width = 16
/** How many deadlines all services together may take. */
const patience = 3

/** A service that did not contribute, and why, in the words that a call of it would get. */
export type Unavailable = { service: string; code: string; message: string }
export type FanOut<T> = { answered: { slug: string; value: T }[]; unavailable: Unavailable[] }

const asUnavailable = (service: string, error: unknown, requestId: string): Unavailable => {
  const { message } = wireError(error, requestId)
  return { service, code: error instanceof AppError ? error.code : 'UPSTREAM_ERROR', message }
}

/**
 * Asks every service the same, a bounded number at a time, each within its own deadline. One that fails or is late is named
 * and costs the others nothing. Answers come in the order of the services, whoever was first.
 */
export async function fanOut<T>(
  members: readonly Gathered[],
  { deadlineMs, signal, requestId }: { deadlineMs: number; signal: AbortSignal | undefined; requestId: string },
  work: (passage: Passage, signal: AbortSignal) => Promise<T>,
): Promise<FanOut<T>> {
  const outcomes: ({ value: T } | { error: unknown } | undefined)[] = members.map(() => undefined)
  const end = performance.now() + deadlineMs * patience
  let next = 0
  const one = async (member: Gathered): Promise<{ value: T } | { error: unknown }> => {
    if (!member.passage) return { error: member.error }
    const left = Math.min(deadlineMs, end - performance.now())
    if (left <= 0) return { error: upstreamTimeout() }
    const late = AbortSignal.timeout(left)
    const bounds = signal ? AbortSignal.any([signal, late]) : late
    try {
      return { value: await abandonable(work(member.passage, bounds), bounds) }
    } catch (error) {
      if (signal?.aborted) throw new Cancelled('The caller gave up.', { cause: error })
      return { error: late.aborted ? upstreamTimeout(error) : error }
    }
  }
  const worker = async (): Promise<void> => {
    for (let at = next++; at < members.length; at = next++) {
      const member = members[at]
      if (member) outcomes[at] = await one(member)
    }
  }
  await Promise.all(Array.from({ length: Math.min(width, members.length) }, worker))
  const answered: FanOut<T>['answered'] = []
  const unavailable: Unavailable[] = []
  for (const [at, { slug }] of members.entries()) {
    const outcome = outcomes[at]
    if (outcome && 'value' in outcome) answered.push({ slug, value: outcome.value })
    else unavailable.push(asUnavailable(slug, outcome?.error, requestId))
  }
  return { answered, unavailable }
}
