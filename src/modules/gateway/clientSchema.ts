import { builder } from '../../graphql/builder.ts'
import type { GraphContext } from '../../graphql/context.ts'
import { expose } from '../../graphql/expose.ts'
import { enumType } from '../../graphql/input.ts'
import { inherited } from '../../graphql/rules.ts'
import { badInput } from '../../kernel/errors.ts'
import { scope } from '../../kernel/rule.ts'
import { organizationSlugOf } from '../organizations/queries.ts'
import { memberOf } from '../organizations/schema.ts'
import { clientConfiguration, mcpClients, type ClientConfiguration } from './clientConfiguration.ts'
import { importServices } from './importServices.ts'

const McpClient = enumType('McpClient', mcpClients, 'MCP clients whose set-up the platform knows.')

const ClientConfigurationType = builder.objectRef<ClientConfiguration>('ClientConfiguration').implement({
  description: 'What to paste where, so that a client reaches a service through the platform.',
  fields: (t) => ({
    file: t.exposeString('file', { rule: inherited, nullable: true, description: 'The file it belongs into.' }),
    content: t.exposeString('content', { rule: inherited, nullable: false }),
    command: t.exposeString('command', {
      rule: inherited,
      nullable: true,
      description: 'A command that does the same.',
    }),
  }),
})

builder.queryField('clientConfiguration', (t) =>
  t.field({
    type: ClientConfigurationType,
    rule: scope('mcp:read'),
    nullable: true,
    description:
      'Set-up of an MCP client: for one service, for a collection, or, without either, for all that you may use. Null for what you may not see.',
    args: {
      client: t.arg({ type: McpClient, required: true, rule: inherited }),
      service: t.arg.string({ rule: inherited, description: 'Slug of a service.' }),
      collection: t.arg.string({ rule: inherited, description: 'Slug of a collection.' }),
    },
    resolve: async (_root, { client, service, collection }, context) => {
      if (service && collection)
        throw badInput([{ path: ['collection'], message: 'expected a service or a collection' }])
      const organization = await organizationSlugOf(context.platform, memberOf(context))
      const place = await placeOf(context, service, collection)
      if (!place || !organization) return null
      return clientConfiguration(
        client,
        place.path.at(-1) ?? organization,
        [`${context.platform.publicUrl}/mcp/${organization}`, ...place.path].join('/'),
      )
    },
  }),
)

type Wanted = string | null | undefined

/** What follows the organisation in the address of what is asked for, if the caller may see it. */
async function placeOf({ tx }: GraphContext, service: Wanted, collection: Wanted): Promise<{ path: string[] } | null> {
  const select = { slug: true } as const
  if (service) {
    const row = await tx.service.findFirst({ where: { slug: service, enabled: true }, select })
    return row && { path: [row.slug] }
  }
  if (!collection) return { path: [] }
  const row = await tx.collection.findFirst({ where: { slug: collection }, select })
  return row && { path: ['collections', row.slug] }
}

type ImportResult = Awaited<ReturnType<typeof importServices.run>>

const SkippedServer = builder.objectRef<ImportResult['skipped'][number]>('SkippedServer').implement({
  description: 'An entry that was not taken, and why.',
  fields: (t) => ({
    name: t.exposeString('name', { rule: inherited, nullable: false }),
    reason: t.exposeString('reason', { rule: inherited, nullable: false }),
  }),
})

const ImportedServices = builder.objectRef<ImportResult>('ImportedServices').implement({
  description: 'What became of the entries of a client’s file.',
  fields: (t) => ({
    slugs: t.exposeStringList('slugs', { rule: inherited, nullable: false, description: 'Services that were added.' }),
    skipped: t.field({
      type: [SkippedServer],
      rule: inherited,
      nullable: false,
      resolve: ({ skipped }) => [...skipped],
    }),
  }),
})

expose(importServices, {
  type: ImportedServices,
  description:
    'Adds the HTTP entries of a client’s file (`mcpServers`, `servers`, `context_servers` or `mcp`) as services. Headers in it are not taken: store tokens apart.',
})
