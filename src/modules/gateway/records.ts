import { randomUUID } from 'node:crypto'
import { system } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { redact } from './redaction.ts'
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
      calls: number
      errors: number
      total: number
      max: number
    }
  >()
  for (const { entry } of batch) {
    const { orgId, serviceSlug: slug, actor } = entry.passage
    const day = entry.startedAt.toISOString().slice(0, 10)
    const tool = entry.tool ?? entry.method
    const key = JSON.stringify([orgId, day, slug, tool, actor.userId])
    const row = rows.get(key) ?? { orgId, day, slug, tool, userId: actor.userId, calls: 0, errors: 0, total: 0, max: 0 }
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

async function write(tx: Tx, batch: readonly Waiting[]): Promise<void> {
  await tx.requestLog.createMany({
    data: batch.map(({ entry }) => ({
      orgId: entry.passage.orgId,
      userId: entry.passage.actor.userId,
      serviceId: entry.passage.serviceId,
      serviceSlug: entry.passage.serviceSlug,
      method: entry.method,
      tool: entry.tool?.slice(0, 500) ?? null,
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
    INSERT INTO usage_daily AS u (id, org_id, day, service_slug, tool, user_id, calls, errors, total_duration_ms, max_duration_ms)
    SELECT * FROM unnest(
      ${rows.map(() => randomUUID())}::uuid[], ${rows.map((r) => r.orgId)}::uuid[], ${rows.map((r) => r.day)}::date[],
      ${rows.map((r) => r.slug)}::text[], ${rows.map((r) => r.tool.slice(0, 500))}::text[], ${rows.map((r) => r.userId)}::uuid[],
      ${rows.map((r) => r.calls)}::int[], ${rows.map((r) => r.errors)}::int[],
      ${rows.map((r) => Math.round(r.total))}::bigint[], ${rows.map((r) => Math.round(r.max))}::int[])
    ON CONFLICT (org_id, day, service_slug, tool, user_id) DO UPDATE SET
      calls = u.calls + excluded.calls, errors = u.errors + excluded.errors,
      total_duration_ms = u.total_duration_ms + excluded.total_duration_ms,
      max_duration_ms = greatest(u.max_duration_ms, excluded.max_duration_ms)`
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
      const error = await this.#platform.database.transact(system(), (tx) => write(tx, batch)).then(() => null, (cause: unknown) => cause) // prettier-ignore
      if (error) this.#platform.log.error({ err: error, lost: batch.length }, 'the request log could not be written')
      for (const { settle } of batch) settle(error)
    }
  }

  async close(): Promise<void> {
    await this.#running
  }
}

export const records = resource((platform) => new Records(platform))
