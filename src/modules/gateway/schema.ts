import type { Tool } from '@modelcontextprotocol/client'
import { builder } from '../../graphql/builder.ts'
import type { GraphContext } from '../../graphql/context.ts'
import { expose } from '../../graphql/expose.ts'
import { inherited } from '../../graphql/rules.ts'
import { notFound } from '../../kernel/errors.ts'
import { scope } from '../../kernel/rule.ts'
import { memberOf } from '../organizations/schema.ts'
import { Service, ToolAccess } from '../services/schema.ts'
import { toolAccess } from '../services/toolPolicy.ts'
import { callTool } from './operations.ts'
import { gateway, passagesTo } from './passage.ts'
import type { Gathered, Passage } from './types.ts'

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

type Ways = { slugs: Set<string>; found: Promise<ReadonlyMap<string, Gathered>> }
const asked = new WeakMap<GraphContext, Ways>()

/** The services that one request asks for in one tick are found together, however long a list of them is. */
async function wayTo(context: GraphContext, slug: string): Promise<Passage> {
  let ways = asked.get(context)
  if (!ways) {
    const slugs = new Set<string>()
    const found = Promise.resolve().then(() => {
      asked.delete(context)
      return passagesTo(context.platform, memberOf(context), [...slugs])
    })
    asked.set(context, (ways = { slugs, found }))
  }
  ways.slugs.add(slug)
  const way = (await ways.found).get(slug)
  if (!way) throw notFound('service')
  if (way.passage) return way.passage
  throw way.error
}

builder.prismaObjectField(Service, 'tools', (t) =>
  t.field({
    type: [ToolType],
    rule: read,
    nullable: true,
    cost: { weight: 10, assumedSize: 100 },
    description: 'The tools that you may call, asked of the service itself.',
    select: { slug: true },
    resolve: async ({ slug }, _args, context) => {
      const passage = await wayTo(context, slug)
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
