import SchemaBuilder from '@pothos/core'
import DirectivesPlugin from '@pothos/plugin-directives'
import PrismaPlugin, { type PrismaClient } from '@pothos/plugin-prisma'
import RelayPlugin from '@pothos/plugin-relay'
import { DateTimeISOResolver, JSONResolver } from 'graphql-scalars'
import { getDatamodel } from '../generated/pothos.ts'
import type PrismaTypes from '../generated/pothos.ts'
import { badInput } from '../kernel/errors.ts'
import { decodeNodeId, encodeNodeId } from '../kernel/nodeId.ts'
import { authenticated, isPublic } from '../kernel/rule.ts'
import type { GraphContext } from './context.ts'
import './loaded.ts'
import { defaultPageSize, inherited, maxPageSize } from './rules.ts'

type Types = {
  Context: GraphContext
  PrismaTypes: PrismaTypes
  Scalars: {
    ID: { Input: string; Output: string | number }
    DateTime: { Input: Date; Output: Date }
    JSON: { Input: unknown; Output: unknown }
  }
  Directives: {
    authenticated: { locations: 'FIELD_DEFINITION'; args: Record<string, never> }
    requiresScopes: { locations: 'FIELD_DEFINITION'; args: { scopes: string[][] } }
    policy: { locations: 'FIELD_DEFINITION'; args: { policies: string[][] } }
  }
}

const onPage = { rule: inherited } as const

/** The one builder. It knows the language and its rules, and no noun of the domain. */
export const builder = new SchemaBuilder<Types>({
  plugins: ['rules', 'loaded', PrismaPlugin, RelayPlugin, DirectivesPlugin],
  prisma: {
    // Prisma's client for a transaction has all that the plugin uses of a client.
    client: (context) => context.tx as unknown as PrismaClient,
    dmmf: getDatamodel(),
    maxConnectionSize: maxPageSize,
    defaultConnectionSize: defaultPageSize,
    exposeDescriptions: false,
    onUnusedQuery: null,
  },
  relay: {
    cursorType: 'String',
    encodeGlobalID: (type, id) => encodeNodeId(type, String(id)),
    decodeGlobalID: (globalId) => {
      const decoded = decodeNodeId(globalId)
      if (!decoded) throw badInput([{ path: ['id'], message: 'expected an id that this API gave' }])
      return { typename: decoded.type, id: decoded.id }
    },
    idFieldOptions: onPage,
    nodeQueryOptions: { rule: authenticated, args: { id: onPage } },
    nodesQueryOptions: false,
    cursorFieldOptions: onPage,
    nodeFieldOptions: onPage,
    edgesFieldOptions: onPage,
    pageInfoFieldOptions: onPage,
    hasNextPageFieldOptions: onPage,
    hasPreviousPageFieldOptions: onPage,
    startCursorFieldOptions: onPage,
    endCursorFieldOptions: onPage,
    beforeArgOptions: onPage,
    afterArgOptions: onPage,
    firstArgOptions: onPage,
    lastArgOptions: onPage,
  },
})

builder.addScalarType('DateTime', DateTimeISOResolver)
builder.addScalarType('JSON', JSONResolver)

builder.queryType({
  description: 'Reads. Each runs as the caller, under row level security.',
  fields: (t) => ({
    apiVersion: t.string({
      rule: isPublic,
      dataClass: 'public',
      nullable: false,
      description: 'Version of this contract; it grows without breaking.',
      resolve: () => '1',
    }),
  }),
})
builder.subscriptionType({
  description: 'News as it comes, over server-sent events. Each item is read as the caller, under row level security.',
})
builder.mutationType({
  description: 'Writes. Each is one operation: one transaction with its audit event, or nothing.',
})
