import { isMember, type Actor } from '../kernel/actor.ts'
import { appendAudit } from '../kernel/audit.ts'
import { parse } from '../kernel/operation.ts'
import type { Platform } from '../kernel/platform.ts'
import { denial, holds } from '../kernel/rule.ts'
import { exportable, maxExportedRows, type Exportable } from '../modules/gateway/recordsExport.ts'
import { recordsFilter } from '../modules/gateway/recordsFilter.ts'
import { charge } from './limits.ts'

const path = /^\/exports\/(request-log|usage)\.(csv|json)$/
/** As much as a hundred pages of the same list. */
const exportCost = 2000

export type ExportPath = { records: Exportable; name: string; format: 'csv' | 'json' }

export function exportPath(pathname: string): ExportPath | null {
  const [, name, format] = path.exec(pathname) ?? []
  const records = name === undefined ? undefined : exportable.get(name)
  return name && records && (format === 'csv' || format === 'json') ? { records, name, format } : null
}

/**
 * The records that the caller may read, as one file. It is read page by page, each under the caller's own identity, so
 * that a credential that ends takes its export with it, and nothing is held in memory.
 */
export async function exported(
  platform: Platform,
  actor: Actor,
  { records, name, format }: ExportPath,
  url: URL,
): Promise<Response> {
  if (!holds(actor, records.rule) || !isMember(actor)) throw denial(actor, records.rule)
  const filter = parse(recordsFilter, Object.fromEntries(url.searchParams))
  await charge(platform, actor, exportCost)
  const detail = { format, filter: JSON.parse(JSON.stringify(filter)) as Record<string, string> }
  await platform.database.transact(actor, (tx) =>
    appendAudit(tx, actor, { action: `${records.noun}.exported`, detail }, 'ok', platform.clock()),
  )
  const pages = records.pages(platform, actor, filter)
  return new Response(stream(format === 'csv' ? csv(records, pages) : json(records, pages)), {
    headers: {
      'Content-Type': format === 'csv' ? 'text/csv; charset=utf-8; header=present' : 'application/json; charset=utf-8',
      'Content-Disposition': `attachment; filename="${name}.${format}"`,
      'X-Row-Limit': String(maxExportedRows),
    },
  })
}

type Pages = AsyncGenerator<readonly Record<string, unknown>[]>

function stream(parts: AsyncGenerator<string, void>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await parts.next()
        if (done) controller.close()
        else controller.enqueue(encoder.encode(value))
      } catch (error) {
        // Broken off, so that half a file is not taken for a whole one.
        controller.error(error)
      }
    },
    cancel: () => parts.return(undefined).then(() => undefined),
  })
}

// What a spreadsheet would run as a formula, also behind spaces and in full width, becomes text (CWE-1236).
const formula = /^[\s\u00a0]*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]/u

function cell(value: unknown): string {
  if (value === null || value === undefined) return ''
  if (typeof value === 'number') return String(value)
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return `"${(formula.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`
}

async function* csv({ columns }: Exportable, pages: Pages): AsyncGenerator<string, void> {
  yield `${columns.join(',')}\r\n`
  for await (const rows of pages)
    yield rows.map((row) => `${columns.map((column) => cell(row[column])).join(',')}\r\n`).join('')
}

async function* json({ columns }: Exportable, pages: Pages): AsyncGenerator<string, void> {
  yield '{"rows":['
  let count = 0
  for await (const rows of pages)
    yield rows
      .map((row) => {
        const shown = Object.fromEntries(columns.map((column) => [column, row[column] ?? null]))
        return `${count++ ? ',' : ''}\n${JSON.stringify(shown)}`
      })
      .join('')
  yield `\n],"complete":${count < maxExportedRows}}\n`
}
