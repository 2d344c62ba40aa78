import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { scope } from '../../kernel/rule.ts'
import { Organization } from '../organizations/schema.ts'
import { Service } from './schema.ts'
import { acceptToolChange, updateMcpSettings } from './toolSafety.ts'

const read = scope('mcp:read')
const administer = scope('mcp:admin')

builder.prismaObjectFields(Organization, (t) => ({
  blockSecrets: t.exposeBoolean('blockSecrets', {
    rule: read,
    nullable: false,
    description: 'Calls and answers that hold a credential are refused.',
  }),
  hideChangedTools: t.exposeBoolean('hideChangedTools', {
    rule: read,
    nullable: false,
    description: 'Tools that are new or have changed are hidden until an administrator accepts them.',
  }),
}))

const ToolChange = builder.prismaObject('ToolPin', {
  name: 'ToolChange',
  description: 'A tool that says something else of itself than what was accepted, or that is new.',
  select: { id: true },
  fields: (t) => ({
    tool: t.exposeString('tool', { rule: administer, nullable: false }),
    accepted: t.exposeString('acceptedDescription', {
      rule: administer,
      nullable: true,
      description: 'Title and description as they were accepted; null for a new tool.',
    }),
    now: t.exposeString('pendingDescription', { rule: administer, nullable: true }),
    hash: t.exposeString('pendingHash', {
      rule: administer,
      nullable: true,
      description: 'Of all that the tool says now, its schemas included; for `acceptToolChange`.',
    }),
    changedAt: t.expose('changedAt', { type: 'DateTime', rule: administer, nullable: true }),
  }),
})

builder.prismaObjectField(Service, 'toolChanges', (t) =>
  t.relation('toolPins', {
    type: ToolChange,
    rule: administer,
    nullable: true,
    cost: { assumedSize: 100 },
    description: 'Changes that wait to be accepted, a hundred at the most.',
    query: { where: { pendingHash: { not: null } }, orderBy: { tool: 'asc' }, take: 100 },
  }),
)

expose(updateMcpSettings, {
  type: Organization,
  description: 'Decides what the organisation asks of its MCP traffic.',
})
expose(acceptToolChange, { type: Service, description: 'Accepts what a tool says of itself now.' })
