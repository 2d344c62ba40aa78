import { v7 as uuidv7 } from 'uuid'
import { system } from '../../kernel/actor.ts'
import { sql, type Sql } from '../../kernel/database/door.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { announcements, deliver, liveCallsChannel, type LoggedCall } from './liveCalls.ts'
import { redact, storable } from './redaction.ts'
import type { CallRecord } from './types.ts'

type Waiting = { entry: CallRecord; settle: (error: unknown) => void }

const maxBatch = 200

/** One row a tool, user and day, however many calls a batch brings, since one statement cannot touch a row twice. */
function totals(batch: readonly Waiting[]) {
  const rows = new Map<string, ReturnType<typeof totalOf>>()
  for (const { entry } of batch) {
    const total = totalOf(entry)
    const key = JSON.stringify([total.org_id, total.day, total.service_slug, total.tool, total.user_id, total.status])
    const known = rows.get(key)
    if (!known) {
      rows.set(key, total)
      continue
    }
    known.calls += 1
    known.errors += total.errors
    known.total_duration_ms += total.total_duration_ms
    known.max_duration_ms = Math.max(known.max_duration_ms, total.max_duration_ms)
  }
  // In one order everywhere, so that two instances never wait for each other's rows crosswise.
  return [...rows.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => ({ id: uuidv7(), ...row }))
}

const totalOf = ({ passage, startedAt, tool, method, status, durationMs }: CallRecord) => ({
  org_id: passage.orgId,
  day: startedAt.toISOString().slice(0, 10),
  service_slug: passage.serviceSlug,
  tool: storable(tool ?? method),
  user_id: passage.actor.userId,
  status,
  calls: 1,
  errors: status === 'ok' ? 0 : 1,
  total_duration_ms: Math.round(durationMs),
  max_duration_ms: Math.round(durationMs),
})

/** A row of the request log; its id grows with time, so that a list by id is one by age. */
const rowOf = ({ entry }: Waiting) => ({
  id: uuidv7(),
  org_id: entry.passage.orgId,
  user_id: entry.passage.actor.userId,
  service_id: entry.passage.serviceId,
  service_slug: entry.passage.serviceSlug,
  method: entry.method,
  tool: entry.tool === null ? null : storable(entry.tool),
  arguments: redact(entry.arguments),
  status: entry.status,
  duration_ms: Math.round(entry.durationMs),
  ip: entry.passage.actor.origin.ip,
  user_agent: entry.passage.actor.origin.userAgent,
  request_id: entry.requestId,
  created_at: entry.startedAt,
})

/** Writes and counts a batch, and tells of it, in one statement. */
function statement(platform: Platform, batch: readonly Waiting[]): { text: Sql; logged: LoggedCall[] } {
  const rows = batch.map(rowOf)
  const logged = rows.map(({ id, org_id: orgId }) => ({ id, orgId }))
  const text = sql`
    WITH logged AS (
      INSERT INTO request_log (id, org_id, user_id, service_id, service_slug, method, tool, arguments, status, duration_ms, ip, user_agent, request_id, created_at)
      SELECT * FROM json_to_recordset(${JSON.stringify(rows)}::json) AS r(id uuid, org_id uuid, user_id uuid, service_id uuid, service_slug text,
        method text, tool text, arguments jsonb, status text, duration_ms int, ip text, user_agent text, request_id text, created_at timestamptz)
    ), counted AS (
      INSERT INTO usage_daily AS u (id, org_id, day, service_slug, tool, user_id, status, calls, errors, total_duration_ms, max_duration_ms)
      SELECT * FROM json_to_recordset(${JSON.stringify(totals(batch))}::json) AS t(id uuid, org_id uuid, day date, service_slug text, tool text,
        user_id uuid, status text, calls int, errors int, total_duration_ms bigint, max_duration_ms int)
      ON CONFLICT (org_id, day, service_slug, tool, user_id, status) DO UPDATE SET
        calls = u.calls + excluded.calls, errors = u.errors + excluded.errors,
        total_duration_ms = u.total_duration_ms + excluded.total_duration_ms,
        max_duration_ms = greatest(u.max_duration_ms, excluded.max_duration_ms)
    ) SELECT pg_notify(${liveCallsChannel}, message) FROM unnest(${announcements(platform, logged)}::text[]) message`
  return { text, logged }
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
      const { text, logged } = statement(this.#platform, batch)
      await this.#platform.database.statement(system(), text)
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
