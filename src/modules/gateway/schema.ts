import type { Tool } from '@modelcontextprotocol/client'
import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { inherited } from '../../graphql/rules.ts'
import { scope } from '../../kernel/rule.ts'
import { memberOf } from '../organizations/schema.ts'
import { Service, ToolAccess } from '../services/schema.ts'
import { toolAccess } from '../services/toolPolicy.ts'
import { callTool } from './operations.ts'
import { gateway, passageTo } from './passage.ts'

const read = scope('mcp:read')

const ToolType = builder.objectRef<Tool & { access: 'READ' | 'WRITE' | 'BLOCKED' }>('Tool').implement({
  description: 'A tool that you may call.',
  fields: (t) => ({
    name: t.exposeString('name', { rule: inherited, nullable: false }),
    title: t.string({ rule: inherited, resolve: ({ title }) => title }),
    description: t.string({ rule: inherited, resolve: ({ description }) => description }),
    access: t.field({ type: ToolAccess, rule: inherited, nullable: false, resolve: ({ access }) => access }),
    inputSchema: t.field({ type: 'JSON', rule: inherited, nullable: false, resolve: ({ inputSchema }) => inputSchema }),
    outputSchema: t.field({
      type: 'JSON',
      rule: inherited,
      nullable: true,
      resolve: ({ outputSchema }) => outputSchema,
    }),
  }),
})

builder.prismaObjectField(Service, 'tools', (t) =>
  t.field({
    type: [ToolType],
    rule: read,
    nullable: true,
    cost: { weight: 10, assumedSize: 100 },
    description: 'The tools that you may call, asked of the service itself.',
    select: { slug: true },
    resolve: async ({ slug }, _args, context) => {
      const passage = await passageTo(context.platform, memberOf(context), slug)
      const tools = await gateway(context.platform).listTools(passage, { signal: context.signal })
      return tools.map((tool) => ({
        ...tool,
        access: toolAccess({
          setting: passage.toolAccess.get(tool.name),
          trusted: passage.trusted,
          annotations: tool.annotations,
        }),
      }))
    },
  }),
)

type CallResult = Awaited<ReturnType<typeof callTool.run>>

const ToolResult = builder.objectRef<CallResult>('ToolResult').implement({
  description: 'What the tool answered.',
  fields: (t) => ({
    isError: t.boolean({
      rule: inherited,
      nullable: false,
      description: 'The tool itself says that it failed.',
      resolve: ({ isError }) => isError ?? false,
    }),
    content: t.field({
      type: 'JSON',
      rule: inherited,
      nullable: false,
      description: 'MCP content blocks.',
      resolve: ({ content }) => content,
    }),
    structuredContent: t.field({
      type: 'JSON',
      rule: inherited,
      nullable: true,
      resolve: ({ structuredContent }) => structuredContent,
    }),
    requestId: t.exposeString('requestId', { rule: inherited, nullable: false, description: 'As in the request log.' }),
    durationMs: t.exposeInt('durationMs', { rule: inherited, nullable: false }),
  }),
})

expose(callTool, { type: ToolResult, description: 'Calls a tool of a service, with your own credential there.' })

const RequestLogEntry = builder.prismaNode('RequestLog', {
  name: 'RequestLogEntry',
  description: 'One call through the gateway.',
  id: { field: 'id', rule: read },
  select: { id: true },
  fields: (t) => ({
    service: t.exposeString('serviceSlug', { rule: read, nullable: false }),
    method: t.exposeString('method', { rule: read, nullable: false }),
    tool: t.exposeString('tool', { rule: read, nullable: true }),
    userId: t.exposeString('userId', { rule: read, nullable: false }),
    arguments: t.expose('arguments', {
      dataClass: 'personal',
      type: 'JSON',
      rule: read,
      nullable: true,
      description: 'Redacted before they were stored.',
    }),
    status: t.exposeString('status', { rule: read, nullable: false }),
    durationMs: t.exposeInt('durationMs', { rule: read, nullable: false }),
    ip: t.exposeString('ip', { dataClass: 'personal', rule: read, nullable: true }),
    userAgent: t.exposeString('userAgent', { dataClass: 'personal', rule: read, nullable: true }),
    requestId: t.exposeString('requestId', { rule: read, nullable: false }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: read, nullable: false }),
  }),
})

builder.queryField('requestLog', (t) =>
  t.prismaConnection({
    type: RequestLogEntry,
    cursor: 'id',
    rule: read,
    description: 'Calls through the gateway, newest first: your own, and for administrators everybody’s.',
    resolve: (query, _root, _args, context) => {
      const { orgId, userId, scopes } = memberOf(context)
      const whose = scopes.includes('mcp:admin') ? {} : { userId }
      return context.tx.requestLog.findMany({
        ...query,
        where: { orgId, ...whose },
        orderBy: [{ createdAt: 'desc' }, { id: 'desc' }],
      })
    },
  }),
)

const Usage = builder.prismaNode('UsageDaily', {
  name: 'Usage',
  description: 'Calls of one tool by one user on one day (UTC).',
  id: { field: 'id', rule: scope('user:read') },
  select: { id: true },
  fields: (t) => ({
    day: t.string({
      rule: scope('user:read'),
      nullable: false,
      select: { day: true },
      resolve: ({ day }) => day.toISOString().slice(0, 10),
    }),
    service: t.exposeString('serviceSlug', { rule: scope('user:read'), nullable: false }),
    tool: t.exposeString('tool', { rule: scope('user:read'), nullable: false }),
    userId: t.exposeString('userId', { rule: scope('user:read'), nullable: false }),
    calls: t.exposeInt('calls', { rule: scope('user:read'), nullable: false }),
    errors: t.exposeInt('errors', { rule: scope('user:read'), nullable: false }),
    totalDurationMs: t.float({
      rule: scope('user:read'),
      nullable: false,
      select: { totalDurationMs: true },
      resolve: ({ totalDurationMs }) => Number(totalDurationMs),
    }),
    maxDurationMs: t.exposeInt('maxDurationMs', { rule: scope('user:read'), nullable: false }),
  }),
})

builder.queryField('usage', (t) =>
  t.prismaConnection({
    type: Usage,
    cursor: 'id',
    rule: scope('user:read'),
    description: 'Daily totals, newest day first: your own, and for developers and above the organisation’s.',
    resolve: (query, _root, _args, context) => {
      const { orgId, userId, role } = memberOf(context)
      const whose = role === 'VIEWER' ? { userId } : {}
      return context.tx.usageDaily.findMany({
        ...query,
        where: { orgId, ...whose },
        orderBy: [{ day: 'desc' }, { id: 'desc' }],
      })
    },
  }),
)
