import { ProtocolError } from '@modelcontextprotocol/client'
import { fanOut, type Unavailable } from './gatheringFanOut.ts'
import { qualifiedName, qualifiedUri } from './gatheringNames.ts'
import type { Downstream, Relay } from './relay.ts'
import { invalidParams } from './relayErrors.ts'
import type { Gathered, Json, Passage } from './types.ts'

/** Where a gathering says which services are missing from an answer. */
export const unavailableKey = 'mcp-online-platform/unavailable'

const maxPages = 32
const maxItems = 5000

type ListKind = { items: string; id: string; qualify: (service: string, own: string) => string }

/** The lists that a gathering puts together: where their items are, and what names one. */
export const lists: ReadonlyMap<string, ListKind> = new Map([
  ['tools/list', { items: 'tools', id: 'name', qualify: qualifiedName }],
  ['prompts/list', { items: 'prompts', id: 'name', qualify: qualifiedName }],
  ['resources/list', { items: 'resources', id: 'uri', qualify: qualifiedUri }],
  ['resources/templates/list', { items: 'resourceTemplates', id: 'uriTemplate', qualify: qualifiedUri }],
])

type Part = { items: Json[]; ttlMs: number; complete: boolean }

/** All pages of one service's list; the first of two items with one name is the one that counts. */
async function gather(
  relay: Relay,
  passage: Passage,
  method: string,
  { items, id }: ListKind,
  downstream: Downstream,
): Promise<Part> {
  if (!(await relay.offers(passage, method, downstream))) return { items: [], ttlMs: Infinity, complete: true }
  const found = new Map<string, Json>()
  let ttlMs = Infinity
  let cursor: string | undefined
  for (let page = 0; page < maxPages && found.size < maxItems; page++) {
    const params = cursor === undefined ? {} : { cursor }
    const result = await relay.answer(passage, { method, params }, downstream)
    const listed: unknown = result[items]
    for (const item of Array.isArray(listed) ? (listed as unknown[]) : []) {
      const own = typeof item === 'object' && item !== null ? (item as Json)[id] : undefined
      if (typeof own === 'string' && own !== '' && !found.has(own)) found.set(own, item as Json)
    }
    ttlMs = Math.min(ttlMs, typeof result['ttlMs'] === 'number' ? result['ttlMs'] : 0)
    const following = result['nextCursor']
    if (typeof following !== 'string' || following === cursor)
      return { items: [...found.values()], ttlMs, complete: true }
    cursor = following
  }
  return { items: [...found.values()].slice(0, maxItems), ttlMs, complete: false }
}

const byName = ([a]: [string, unknown], [b]: [string, unknown]): number => (a < b ? -1 : a > b ? 1 : 0)

/** One list of all services: in the order of the services' slugs and, within each, of the names. */
export async function gatheredList(
  relay: Relay,
  members: readonly Gathered[],
  method: string,
  kind: ListKind,
  params: Json,
  downstream: Downstream,
  deadlineMs: number,
): Promise<Json> {
  // The whole list is one page, so no cursor is ours.
  if (params['cursor'] !== undefined) throw new ProtocolError(invalidParams, 'Invalid cursor')
  const { signal, requestId } = downstream
  const { answered, unavailable } = await fanOut(members, { deadlineMs, signal, requestId }, (passage, until) =>
    gather(relay, passage, method, kind, { ...downstream, signal: until, notify: () => undefined }),
  )
  const missing: Unavailable[] = [...unavailable]
  const items = answered.flatMap(({ slug, value }) => {
    if (!value.complete)
      missing.push({
        service: slug,
        code: 'UPSTREAM_ERROR',
        message: 'The list of the service is too long; its end is missing.',
      })
    return value.items
      .map((item): [string, Json] => [String(item[kind.id]), item])
      .sort(byName)
      .map(([own, item]) => ({ ...item, [kind.id]: kind.qualify(slug, own) }))
  })
  const ttlMs = missing.length > 0 ? 0 : Math.min(60_000, ...answered.map(({ value }) => value.ttlMs))
  return {
    [kind.items]: items,
    ttlMs,
    cacheScope: 'private',
    ...(missing.length > 0 ? { _meta: { [unavailableKey]: missing } } : {}),
  }
}
