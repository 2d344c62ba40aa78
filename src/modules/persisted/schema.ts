import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { scope } from '../../kernel/rule.ts'
import { memberOf } from '../organizations/schema.ts'
import { registerPersistedOperation } from './operations.ts'

const read = scope('mcp:read')

const PersistedOperation = builder.prismaNode('PersistedOperation', {
  description: 'A document that API keys of the organisation may run.',
  id: { field: 'id', rule: read },
  select: { id: true },
  fields: (t) => ({
    sha256: t.exposeString('sha256', {
      rule: read,
      nullable: false,
      description: 'For `extensions.persistedQuery.sha256Hash` or `documentId`.',
    }),
    name: t.exposeString('name', { rule: read, nullable: true }),
    kind: t.exposeString('kind', { rule: read, nullable: false }),
    document: t.exposeString('document', { rule: read, nullable: false }),
    requiredScopes: t.exposeStringList('requiredScopes', {
      rule: read,
      nullable: false,
      description: 'What a key needs for every field of it.',
    }),
    cost: t.exposeInt('cost', { rule: read, nullable: false, description: 'At the worst, whatever the variables.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: read, nullable: false }),
  }),
})

builder.queryField('persistedOperations', (t) =>
  t.prismaConnection({
    type: PersistedOperation,
    cursor: 'id',
    rule: read,
    description: 'The organisation’s registered operations, newest first.',
    resolve: (query, _root, _args, context) =>
      context.tx.persistedOperation.findMany({
        ...query,
        where: { orgId: memberOf(context).orgId },
        orderBy: { id: 'desc' },
      }),
  }),
)

expose(registerPersistedOperation, { type: PersistedOperation, description: 'Registers one operation for API keys.' })
