import { randomUUID } from 'node:crypto'
import { system } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { announce, deliver, type LoggedCall } from './liveCalls.ts'
import { redact, storable } from './redaction.ts'
import type { CallRecord } from './types.ts'

type Waiting = { entry: CallRecord; settle: (error: unknown) => void }

const maxBatch = 200

/** One row a tool, user and day, however many calls a batch brings, since one statement cannot touch a row twice. */
function totals(batch: readonly Waiting[]) {
  const rows = new Map<
    string,
    {
      orgId: string
      day: string
      slug: string
      tool: string
      userId: string
      status: string
      calls: number
      errors: number
      total: number
      max: number
    }
  >()
  for (const { entry } of batch) {
    const { orgId, serviceSlug: slug, actor } = entry.passage
    const day = entry.startedAt.toISOString().slice(0, 10)
    const tool = storable(entry.tool ?? entry.method)
    const { userId } = actor
    const { status } = entry
    const key = JSON.stringify([orgId, day, slug, tool, userId, status])
    const row = rows.get(key) ?? { orgId, day, slug, tool, userId, status, calls: 0, errors: 0, total: 0, max: 0 }
    row.calls += 1
    row.errors += entry.status === 'ok' ? 0 : 1
    row.total += entry.durationMs
    row.max = Math.max(row.max, entry.durationMs)
    rows.set(key, row)
  }
  // In one order everywhere, so that two instances never wait for each other's rows crosswise.
  return [...rows.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row)
}

const stored = (values: unknown) => {
  const clean = redact(values)
  return clean === null ? {} : { arguments: clean }
}

async function write(tx: Tx, batch: readonly Waiting[]): Promise<LoggedCall[]> {
  const logged = await tx.requestLog.createManyAndReturn({
    select: { id: true, orgId: true },
    data: batch.map(({ entry }) => ({
      orgId: entry.passage.orgId,
      userId: entry.passage.actor.userId,
      serviceId: entry.passage.serviceId,
      serviceSlug: entry.passage.serviceSlug,
      method: entry.method,
      tool: entry.tool === null ? null : storable(entry.tool),
      // Absent when there were none; the column is then NULL.
      ...stored(entry.arguments),
      status: entry.status,
      durationMs: Math.round(entry.durationMs),
      ip: entry.passage.actor.origin.ip,
      userAgent: entry.passage.actor.origin.userAgent,
      requestId: entry.requestId,
      createdAt: entry.startedAt,
    })),
  })
  const rows = totals(batch)
  await tx.$executeRaw`
    INSERT INTO usage_daily AS u (id, org_id, day, service_slug, tool, user_id, status, calls, errors, total_duration_ms, max_duration_ms)
    SELECT * FROM unnest(
      ${rows.map(() => randomUUID())}::uuid[], ${rows.map((r) => r.orgId)}::uuid[], ${rows.map((r) => r.day)}::date[],
      ${rows.map((r) => r.slug)}::text[], ${rows.map((r) => r.tool)}::text[], ${rows.map((r) => r.userId)}::uuid[], ${rows.map((r) => r.status)}::text[],
      ${rows.map((r) => r.calls)}::int[], ${rows.map((r) => r.errors)}::int[],
      ${rows.map((r) => Math.round(r.total))}::bigint[], ${rows.map((r) => Math.round(r.max))}::int[])
    ON CONFLICT (org_id, day, service_slug, tool, user_id, status) DO UPDATE SET
      calls = u.calls + excluded.calls, errors = u.errors + excluded.errors,
      total_duration_ms = u.total_duration_ms + excluded.total_duration_ms,
      max_duration_ms = greatest(u.max_duration_ms, excluded.max_duration_ms)`
  return logged
}

/**
 * The request log and the usage totals, by group commit: calls that end while a commit is under way share the next one.
 * `add` resolves when its row is durable, so an answered call never lacks one.
 */
export class Records {
  readonly #platform: Platform
  #waiting: Waiting[] = []
  #running: Promise<void> | null = null

  constructor(platform: Platform) {
    this.#platform = platform
  }

  add(entry: CallRecord): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ entry, settle: (error) => (error ? reject(error as Error) : resolve()) })
      this.#running ??= this.#drain().finally(() => (this.#running = null))
    })
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, maxBatch)
      const error = await this.#commit(batch)
      if (!error) for (const { settle } of batch) settle(null)
      // One call's row that cannot be written must not cost others their answers, so each is tried alone.
      else if (batch.length > 1) for (const one of batch) one.settle(await this.#commit([one]))
      else batch[0]?.settle(error)
    }
  }

  async #commit(batch: readonly Waiting[]): Promise<unknown> {
    try {
      const logged = await this.#platform.database.transact(system(), async (tx) => {
        const rows = await write(tx, batch)
        await announce(this.#platform, tx, rows)
        return rows
      })
      deliver(this.#platform, logged)
      return null
    } catch (error) {
      this.#platform.log.error({ err: error, rows: batch.length }, 'the request log could not be written')
      return error
    }
  }

  async close(): Promise<void> {
    await this.#running
  }
}

export const records = resource((platform) => new Records(platform))
