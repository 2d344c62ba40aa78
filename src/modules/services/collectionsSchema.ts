import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { inherited } from '../../graphql/rules.ts'
import { scope } from '../../kernel/rule.ts'
import { memberOf } from '../organizations/schema.ts'
import { publishCollection, withdrawCollection } from './collections.ts'
import { Service } from './schema.ts'

const read = scope('mcp:read')

const CollectionTool = builder.prismaObject('CollectionTool', {
  description: 'One tool of a collection.',
  select: { id: true },
  fields: (t) => ({
    tool: t.exposeString('tool', { rule: read, nullable: false, description: 'Its name at the service.' }),
    service: t.relation('service', {
      type: Service,
      rule: read,
      nullable: true,
      description: 'Null to a key that may not reach it.',
    }),
  }),
})

const Collection = builder.prismaNode('Collection', {
  description:
    'Chosen tools of several services under one address, `/mcp/{organization}/collections/{collection}`. Each caller finds there those that they may use.',
  id: { field: 'id', rule: read },
  select: { id: true },
  fields: (t) => ({
    slug: t.exposeString('slug', { rule: read, nullable: false }),
    name: t.exposeString('name', { rule: read, nullable: false }),
    description: t.exposeString('description', { rule: read, nullable: false }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: read, nullable: false }),
    updatedAt: t.expose('updatedAt', { type: 'DateTime', rule: read, nullable: false }),
    tools: t.relation('tools', {
      type: CollectionTool,
      rule: read,
      nullable: false,
      cost: { assumedSize: 100 },
      query: { orderBy: { id: 'asc' } },
    }),
  }),
})

builder.queryField('collections', (t) =>
  t.prismaConnection({
    type: Collection,
    cursor: 'id',
    rule: read,
    description: 'The organisation’s collections, oldest first.',
    resolve: (query, _root, _args, context) =>
      context.tx.collection.findMany({ ...query, where: { orgId: memberOf(context).orgId }, orderBy: { id: 'asc' } }),
  }),
)

const WithdrawnCollection = builder.objectRef<{ id: string; slug: string }>('WithdrawnCollection').implement({
  description: 'A collection that is gone; its tools are where they were.',
  fields: (t) => ({
    id: t.globalID({ rule: inherited, nullable: false, resolve: ({ id }) => ({ type: 'Collection', id }) }),
    slug: t.exposeString('slug', { rule: inherited, nullable: false }),
  }),
})

expose(publishCollection, {
  type: Collection,
  description: 'Publishes chosen tools under one address, or replaces the collection of that slug.',
  resolve: ({ id }) => ({ id }) as never,
})
expose(withdrawCollection, { type: WithdrawnCollection, description: 'Takes a collection away.' })
