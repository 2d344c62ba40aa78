import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { enumType } from '../../graphql/input.ts'
import { inherited } from '../../graphql/rules.ts'
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
    description: 'Set-up of an MCP client for one service; null for a service that you may not see.',
    args: {
      client: t.arg({ type: McpClient, required: true, rule: inherited }),
      service: t.arg.string({ required: true, rule: inherited, description: 'Slug of the service.' }),
    },
    resolve: async (_root, { client, service: slug }, context) => {
      const actor = memberOf(context)
      const service = await context.tx.service.findFirst({
        where: { slug, enabled: true },
        select: { slug: true },
      })
      const organization = await organizationSlugOf(context.platform, actor)
      if (!service || !organization) return null
      return clientConfiguration(
        client,
        service.slug,
        `${context.platform.publicUrl}/mcp/${organization}/${service.slug}`,
      )
    },
  }),
)

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
    'Adds the HTTP entries of an `mcpServers` file as services. Headers in it are not taken: store tokens apart.',
})
