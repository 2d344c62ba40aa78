import type { Member } from '../../kernel/actor.ts'
import { AppError } from '../../kernel/errors.ts'
import type { Platform } from '../../kernel/platform.ts'
import { liveCalls } from './liveCalls.ts'
import { requestLogWhere, type RecordsFilter } from './recordsFilter.ts'
import { signalled } from './upstreamDeadline.ts'

/** How often a quiet stream asks whether its credential still stands. */
const confirmMs = 10_000
/** How far behind a reader may fall. */
const maxBehind = 5000

/**
 * The calls of an organisation, as they are recorded. Every look is a statement under the caller's own identity, so a
 * credential that has ended ends the stream, and row level security decides what is in it.
 */
export async function* watchCalls(
  platform: Platform,
  actor: Member,
  filter: RecordsFilter,
  signal: AbortSignal,
): AsyncGenerator<{ id: string }> {
  let waiting: string[] = []
  let woken = signalled()
  const wake = (): void => woken.fulfil()
  const leave = await liveCalls(platform).watch(actor.orgId, (ids) => {
    waiting.push(...ids)
    wake()
  })
  const end = performance.now() + platform.config.accessTokenTtlSeconds * 1000
  const timer = setInterval(wake, confirmMs).unref()
  signal.addEventListener('abort', wake, { once: true })
  try {
    while (!signal.aborted && performance.now() < end) {
      await woken.promise
      woken = signalled()
      if (signal.aborted) return
      if (waiting.length > maxBehind)
        throw new AppError('RATE_LIMITED', 'More calls were made than this stream could carry.')
      const ids = waiting
      waiting = []
      // Also when there are none: then it only confirms the credential.
      const found = await platform.database.read(actor, (tx) =>
        tx.requestLog.findMany({
          where: { AND: [requestLogWhere(filter), { id: { in: ids } }] },
          orderBy: { id: 'asc' },
          select: { id: true },
        }),
      )
      yield* found
    }
  } finally {
    clearInterval(timer)
    signal.removeEventListener('abort', wake)
    leave()
  }
}
