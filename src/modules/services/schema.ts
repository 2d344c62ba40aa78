import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { enumType } from '../../graphql/input.ts'
import { inherited } from '../../graphql/rules.ts'
import { scope } from '../../kernel/rule.ts'
import { memberOf, Organization } from '../organizations/schema.ts'
import * as operations from './operations.ts'

const CredentialMode = enumType(
  'CredentialMode',
  operations.credentialModes,
  'Whose credential an upstream receives: nobody’s, the organisation’s, or each caller’s own.',
)
const CredentialKind = enumType(
  'CredentialKind',
  operations.credentialKinds,
  'How a credential comes here: TOKEN is stored by its holder, OAUTH is an account that its holder connects.',
)
export const ToolAccess = enumType(
  'ToolAccess',
  operations.toolAccesses,
  'READ needs `mcp:read`, WRITE needs `mcp:write`, BLOCKED is nobody’s.',
)

const read = scope('mcp:read')

const ServiceToken = builder.prismaObject('UserToken', {
  name: 'ServiceToken',
  description: 'That you hold a token for this service. The token itself is never shown.',
  select: { id: true },
  fields: (t) => ({
    hint: t.exposeString('hint', {
      rule: scope('user:token'),
      nullable: false,
      description: 'The last four characters, of a token long enough to spare them.',
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: scope('user:token'), nullable: false }),
    updatedAt: t.expose('updatedAt', { type: 'DateTime', rule: scope('user:token'), nullable: false }),
  }),
})

export const Service = builder.prismaNode('Service', {
  description: 'An MCP server of the organisation, reached through `/mcp/{organization}/{service}`.',
  id: { field: 'id', rule: read },
  select: { id: true },
  fields: (t) => ({
    slug: t.exposeString('slug', { rule: read, nullable: false }),
    name: t.exposeString('name', { rule: read, nullable: false }),
    description: t.exposeString('description', { rule: read, nullable: false }),
    endpoint: t.exposeString('endpoint', {
      rule: scope('mcp:write'),
      description: 'Its own address; for those who configure services.',
    }),
    hosted: t.exposeString('hosted', {
      rule: scope('mcp:write'),
      description: 'Name in the operator’s catalogue, where the platform runs it as a process; null elsewhere.',
    }),
    credentialMode: t.expose('credentialMode', { type: CredentialMode, rule: read, nullable: false }),
    credentialKind: t.expose('credentialKind', { type: CredentialKind, rule: read, nullable: false }),
    credentialHeader: t.exposeString('credentialHeader', { rule: scope('mcp:write') }),
    enabled: t.exposeBoolean('enabled', { rule: read, nullable: false }),
    trusted: t.exposeBoolean('trusted', {
      rule: read,
      nullable: false,
      description: 'Whether its hints about its own tools are believed.',
    }),
    version: t.exposeInt('version', { rule: read, nullable: false }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: read, nullable: false }),
    updatedAt: t.expose('updatedAt', { type: 'DateTime', rule: read, nullable: false }),
    token: t.prismaField({
      type: ServiceToken,
      rule: scope('user:token'),
      nullable: true,
      description: 'Your own token for this service, if you stored one.',
      // findUnique, since Prisma joins those of one request and one tick: a list of services costs one statement more.
      resolve: (query, { id: serviceId }, _args, context) =>
        context.tx.userToken.findUnique({
          ...query,
          where: { userId_serviceId: { userId: memberOf(context).userId, serviceId } },
        }),
    }),
  }),
})

builder.prismaObjectField(Organization, 'services', (t) =>
  t.relatedConnection('services', { cursor: 'id', rule: read, query: { orderBy: { id: 'asc' } } }),
)

builder.queryField('services', (t) =>
  t.prismaConnection({
    type: Service,
    cursor: 'id',
    rule: read,
    description: 'The organisation’s MCP services, oldest first.',
    resolve: (query, _root, _args, { tx }) => tx.service.findMany({ ...query, orderBy: { id: 'asc' } }),
  }),
)

builder.queryField('service', (t) =>
  t.prismaField({
    type: Service,
    rule: read,
    nullable: true,
    description: 'One service by its slug; null where there is none that you may see.',
    args: { slug: t.arg.string({ required: true, rule: inherited }) },
    resolve: (query, _root, { slug }, { tx }) => tx.service.findFirst({ ...query, where: { slug } }),
  }),
)

const DeletedService = builder.objectRef<{ id: string; slug: string }>('DeletedService').implement({
  description: 'A service that is gone, with its tokens and tool settings.',
  fields: (t) => ({
    id: t.globalID({ rule: inherited, nullable: false, resolve: ({ id }) => ({ type: 'Service', id }) }),
    slug: t.exposeString('slug', { rule: inherited, nullable: false }),
  }),
})

const byId = (id: string) => ({ id }) as never

expose(operations.createService, { type: Service, description: 'Adds an MCP service to the organisation.' })
expose(operations.updateService, {
  type: Service,
  description: 'Changes a service. A new address drops every stored token.',
})
expose(operations.deleteService, {
  type: DeletedService,
  description: 'Removes a service, its tokens and its tool settings.',
})
expose(operations.storeServiceToken, {
  type: Service,
  description: 'Seals your own token for a service.',
  resolve: ({ serviceId }) => byId(serviceId),
})
expose(operations.deleteServiceToken, {
  type: Service,
  description: 'Forgets your own token for a service.',
  resolve: ({ serviceId }) => byId(serviceId),
})
expose(operations.storeSharedToken, { type: Service, description: 'Seals the organisation’s token for a service.' })
expose(operations.setToolAccess, { type: Service, description: 'Decides what a call of one tool amounts to.' })
expose(operations.trustService, {
  type: Service,
  description: 'Believes, or not, the hints that a service gives about its tools.',
})
