import type { Tool } from '@modelcontextprotocol/client'
import { createHash } from 'node:crypto'
import { system, type Member } from '../../kernel/actor.ts'
import { appendAudit } from '../../kernel/audit.ts'
import { boundedCache } from '../../kernel/boundedCache.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { storable } from './redaction.ts'
import type { Passage, Pin, PinBook } from './types.ts'

const maxPins = 2000
const maxNamed = 50

/** The same text for the same value, in whatever order its members were written. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )
}

// A listed tool is one object for as long as the list is fresh.
const fingerprints = new WeakMap<Tool, string>()

/** Of all that a model, or a person, is told about a tool. */
export function fingerprint(tool: Tool): string {
  const known = fingerprints.get(tool)
  if (known) return known
  const { name, title, description, inputSchema, outputSchema, annotations } = tool
  const text = canonical([name, title, description, inputSchema, outputSchema, annotations])
  const hash = createHash('sha256').update(text).digest('hex')
  fingerprints.set(tool, hash)
  return hash
}

/** Whether a tool is not what was accepted. Of a service that nobody has looked at yet, everything is. */
export const isChanged = (book: PinBook, tool: Tool): boolean =>
  book.size > 0 && book.get(tool.name)?.accepted !== fingerprint(tool)

/** Whether nobody has written down yet what this tool says. */
export function isNews(book: PinBook, tool: Tool): boolean {
  const pin = book.get(tool.name)
  const hash = fingerprint(tool)
  return pin === undefined ? book.size < maxPins : pin.accepted !== hash && pin.pending !== hash
}

const books = resource(() => boundedCache<PinBook>(5000))

/** The pins of services, each read once for every version of them. */
export async function pinBooks(
  platform: Platform,
  actor: Member,
  services: readonly { id: string; pinsVersion: number }[],
): Promise<ReadonlyMap<string, PinBook>> {
  const cache = books(platform)
  const found = new Map<string, PinBook>()
  const missing = services.filter(({ id, pinsVersion }) => {
    const book = pinsVersion === 0 ? new Map<string, Pin>() : cache.get(`${id}/${pinsVersion}`)
    if (book) found.set(id, book)
    return !book
  })
  if (missing.length === 0) return found
  const rows = await platform.database.read(actor, (tx) =>
    tx.toolPin.findMany({
      where: { orgId: actor.orgId, serviceId: { in: missing.map(({ id }) => id) } },
      select: { serviceId: true, tool: true, acceptedHash: true, pendingHash: true },
    }),
  )
  for (const { id, pinsVersion } of missing) {
    const own = rows.filter(({ serviceId }) => serviceId === id)
    const book = new Map(own.map((row) => [row.tool, { accepted: row.acceptedHash, pending: row.pendingHash }]))
    cache.set(`${id}/${pinsVersion}`, book)
    found.set(id, book)
  }
  return found
}

const shown = ({ title, description }: Tool): string =>
  [title, description].filter((text) => text !== undefined).join('\n').slice(0, 4000).replace(/\0|\p{Surrogate}/gu, '\ufffd') // prettier-ignore

type Change = { tool: Tool; hash: string; known: boolean }

/** What differs from the pins as they are now, which another request may have just written. */
async function changesOf(
  tx: Tx,
  serviceId: string,
  tools: readonly Tool[],
): Promise<{ first: boolean; changes: Change[] }> {
  // One at a time for each service.
  const locked = await tx.$queryRaw<unknown[]>`SELECT 1 FROM services WHERE id = ${serviceId}::uuid FOR UPDATE`
  if (locked.length === 0) return { first: false, changes: [] }
  const pins = await tx.toolPin.findMany({
    where: { serviceId },
    select: { tool: true, acceptedHash: true, pendingHash: true },
  })
  const book = new Map(pins.map((row) => [row.tool, { accepted: row.acceptedHash, pending: row.pendingHash }]))
  const news = tools.filter((tool) => storable(tool.name) === tool.name && isNews(book, tool))
  const changes = news.slice(0, maxPins).map((tool) => ({ tool, hash: fingerprint(tool), known: book.has(tool.name) }))
  return { first: pins.length === 0, changes }
}

/**
 * Writes down what tools say of themselves. What a service says at first is taken as it is; whatever differs later, or is
 * new, is written beside it and told in the audit trail, whether or not the organisation hides it.
 */
export async function pinTools(
  platform: Platform,
  { orgId, serviceId, serviceSlug, actor }: Passage,
  tools: readonly Tool[],
): Promise<void> {
  const now = platform.clock()
  await platform.database.transact(system(actor.origin), async (tx) => {
    const { first, changes } = await changesOf(tx, serviceId, tools)
    if (changes.length === 0) return
    const names = changes.map(({ tool }) => tool.name)
    const hashes = changes.map(({ hash }) => hash)
    const said = changes.map(({ tool }) => shown(tool))
    await tx.$executeRaw`
      INSERT INTO tool_pins (id, org_id, service_id, tool, accepted_hash, accepted_description, pending_hash, pending_description, changed_at)
      SELECT gen_random_uuid(), ${orgId}::uuid, ${serviceId}::uuid, n.tool,
        CASE WHEN ${first} THEN n.hash END, CASE WHEN ${first} THEN n.said END,
        CASE WHEN NOT ${first} THEN n.hash END, CASE WHEN NOT ${first} THEN n.said END, CASE WHEN NOT ${first} THEN ${now}::timestamptz END
      FROM unnest(${names}::text[], ${hashes}::text[], ${said}::text[]) AS n (tool, hash, said)
      ON CONFLICT (service_id, tool) DO UPDATE SET pending_hash = excluded.pending_hash,
        pending_description = excluded.pending_description, changed_at = excluded.changed_at`
    await tx.$executeRaw`UPDATE services SET pins_version = pins_version + 1 WHERE id = ${serviceId}::uuid`
    if (first) return
    const told = (known: boolean) => changes.filter((each) => each.known === known).map(({ tool }) => storable(tool.name)).slice(0, maxNamed) // prettier-ignore
    const detail = { service: serviceSlug, changed: told(true), added: told(false), count: changes.length }
    await appendAudit(tx, system(actor.origin), { action: 'tools.changed', target: serviceId, orgId, userId: actor.userId, detail }, 'ok', now) // prettier-ignore
  })
}
