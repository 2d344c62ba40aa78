import { z } from 'zod'
import { operation } from '../../kernel/operation.ts'
import { scope } from '../../kernel/rule.ts'
import { slugOf } from '../organizations/operations.ts'
import { actingMember, endpoint } from '../services/operations.ts'
import { entriesOf, mcpServersFile } from './clientConfiguration.ts'

const maxEntries = 50

/** Takes over what a member already uses. Credentials stay behind: they belong to one user, and the file to anybody. */
export const importServices = operation({
  name: 'importServices',
  requires: scope('mcp:write'),
  input: z.strictObject({
    configuration: mcpServersFile.meta({ graphql: 'JSON' }).describe('The file’s content, with its `mcpServers`.'),
  }),
  run: async ({ tx, actor, now }, { configuration }) => {
    const { orgId } = actingMember(actor)
    const skipped: { name: string; reason: string }[] = []
    const entries = entriesOf(configuration)
    for (const [name] of entries.slice(maxEntries)) skipped.push({ name, reason: `more than ${maxEntries} entries` })
    const wanted = entries.slice(0, maxEntries).flatMap(([name, entry]) => {
      const address = entry.url ?? entry.serverUrl ?? entry.httpUrl
      if (!address) skipped.push({ name, reason: 'not an HTTP entry; processes are named by the operator alone' })
      const parsed = endpoint.safeParse(address)
      if (address && !parsed.success)
        skipped.push({ name, reason: parsed.error.issues[0]?.message ?? 'not an address' })
      return parsed.success ? [{ name, slug: slugOf(name), endpoint: parsed.data }] : []
    })
    const taken = await tx.service.findMany({
      where: { orgId, slug: { in: wanted.map(({ slug }) => slug) } },
      select: { slug: true },
    })
    const known = new Set(taken.map(({ slug }) => slug))
    const added = wanted.filter(({ name, slug }) => {
      if (known.has(slug)) skipped.push({ name, reason: `a service "${slug}" exists already` })
      const isNew = !known.has(slug)
      known.add(slug)
      return isNew
    })
    await tx.service.createMany({ data: added.map((service) => ({ orgId, ...service, createdAt: now })) })
    return { slugs: added.map(({ slug }) => slug), skipped }
  },
  audit: ({ slugs }) => ({ action: 'service.imported', detail: { slugs } }),
})
