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
