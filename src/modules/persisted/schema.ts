import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { scope } from '../../kernel/rule.ts'
import { analyseDocument } from '../../graphql/registry.ts'
import { inherited } from '../../graphql/rules.ts'
import { parse } from '../../kernel/operation.ts'
import { z } from 'zod'
import {
  deletePersistedOperation,
  documentText,
  registerPersistedOperation,
  registerPersistedOperations,
} from './operations.ts'

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
    clientId: t.exposeString('clientId', {
      rule: read,
      nullable: true,
      description: 'The id by which a client’s manifest names it.',
    }),
    name: t.exposeString('name', { rule: read, nullable: true }),
    version: t.exposeInt('version', {
      rule: read,
      nullable: false,
      description: 'Under its name; `Name@3` and `Name@latest` are document ids too.',
    }),
    kind: t.exposeString('kind', { rule: read, nullable: false }),
    document: t.exposeString('document', { rule: read, nullable: false }),
    requiredScopes: t.exposeStringList('requiredScopes', {
      rule: read,
      nullable: false,
      description: 'What a key needs for every field of it.',
    }),
    stepUp: t.exposeBoolean('stepUp', {
      rule: read,
      nullable: false,
      description: 'Something of it needs a second factor, which no key can give.',
    }),
    records: t.exposeStringList('records', {
      rule: read,
      nullable: false,
      description: 'Kinds of rows that it reads.',
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
    resolve: (query, _root, _args, { tx }) => tx.persistedOperation.findMany({ ...query, orderBy: { id: 'desc' } }),
  }),
)

expose(registerPersistedOperation, { type: PersistedOperation, description: 'Registers one operation for API keys.' })

const RegisteredOperations = builder.objectRef<{ operations: { id: string }[] }>('RegisteredOperations').implement({
  description: 'The entries of a manifest, in its order.',
  fields: (t) => ({
    operations: t.field({
      type: [PersistedOperation],
      rule: inherited,
      nullable: false,
      cost: { assumedSize: 500 },
      resolve: ({ operations }) => operations as never,
    }),
  }),
})

expose(registerPersistedOperations, {
  type: RegisteredOperations,
  description: 'Registers a whole manifest, all or nothing.',
})

const DeletedOperation = builder.objectRef<{ sha256: string }>('DeletedOperation').implement({
  description: 'An operation that API keys can no longer run.',
  fields: (t) => ({ sha256: t.exposeString('sha256', { rule: inherited, nullable: false }) }),
})

expose(deletePersistedOperation, { type: DeletedOperation, description: 'Takes an operation from API keys, at once.' })

builder.queryField('minimalScopes', (t) =>
  t.stringList({
    rule: read,
    nullable: false,
    description: 'The scopes that a key needs to run all of these documents, and no more.',
    args: { documents: t.arg.stringList({ required: true, rule: inherited }) },
    resolve: (_root, args, { platform }) => {
      const { documents } = parse(z.object({ documents: z.array(documentText).min(1).max(100) }), args)
      const scopes = documents.flatMap((document, i) => analyseDocument(platform, document, ['documents', i]).scopes)
      return [...new Set(scopes)].sort()
    },
  }),
)
