import type { Member } from '../../kernel/actor.ts'
import type { Platform } from '../../kernel/platform.ts'
import { scope, type Rule } from '../../kernel/rule.ts'
import { requestLogWhere, usageWhere, type RecordsFilter } from './recordsFilter.ts'

/** The most rows of one file; a shorter time gives the rest. */
export const maxExportedRows = 100_000
const pageSize = 1000

type Row = Record<string, unknown>

/** Records that can be had as a file: by the same rule and of the same rows as in GraphQL. */
export type Exportable = {
  noun: string
  rule: Rule
  columns: readonly string[]
  pages(platform: Platform, actor: Member, filter: RecordsFilter): AsyncGenerator<readonly Row[]>
}

async function* paged<T>(read: (after: T | undefined) => Promise<T[]>): AsyncGenerator<T[]> {
  let last: T | undefined
  for (let count = 0; count < maxExportedRows;) {
    const rows = (await read(last)).slice(0, maxExportedRows - count)
    if (rows.length > 0) yield rows
    count += rows.length
    last = rows.at(-1)
    if (rows.length < pageSize) return
  }
}

const requestLog: Exportable = {
  noun: 'requestLog',
  rule: scope('mcp:read'),
  columns: ['createdAt', 'userId', 'service', 'method', 'tool', 'status', 'durationMs', 'arguments', 'ip', 'userAgent', 'requestId'], // prettier-ignore
  async *pages(platform, actor, filter) {
    const select = { id: true, createdAt: true, userId: true, serviceSlug: true, method: true, tool: true, status: true, durationMs: true, arguments: true, ip: true, userAgent: true, requestId: true } as const // prettier-ignore
    const pages = paged((after: { id: string } | undefined) =>
      platform.database.read(actor, (tx) =>
        tx.requestLog.findMany({
          where: { AND: [requestLogWhere(filter), after ? { id: { lt: after.id } } : {}] },
          orderBy: { id: 'desc' },
          take: pageSize,
          select,
        }),
      ),
    )
    for await (const rows of pages)
      yield (rows as (Row & { createdAt: Date })[]).map(({ serviceSlug: service, createdAt, ...row }) => ({
        ...row,
        service,
        createdAt: createdAt.toISOString(),
      }))
  },
}

type Day = { id: string; day: Date }

const usage: Exportable = {
  noun: 'usage',
  rule: scope('user:read'),
  columns: ['day', 'service', 'tool', 'userId', 'status', 'calls', 'errors', 'totalDurationMs', 'maxDurationMs'],
  async *pages(platform, actor, filter) {
    const pages = paged((after: Day | undefined) => {
      const older = after ? { OR: [{ day: { lt: after.day } }, { day: after.day, id: { lt: after.id } }] } : {}
      return platform.database.read(actor, (tx) =>
        tx.usageDaily.findMany({
          where: { AND: [usageWhere(filter), older] },
          orderBy: [{ day: 'desc' }, { id: 'desc' }],
          take: pageSize,
        }),
      )
    })
    for await (const rows of pages)
      yield (rows as (Row & Day)[]).map(({ serviceSlug: service, day, totalDurationMs, ...row }) => ({
        ...row,
        service,
        day: day.toISOString().slice(0, 10),
        totalDurationMs: Number(totalDurationMs),
      }))
  },
}

export const exportable: ReadonlyMap<string, Exportable> = new Map([
  ['request-log', requestLog],
  ['usage', usage],
])
