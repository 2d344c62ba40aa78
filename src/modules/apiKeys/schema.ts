import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { inherited } from '../../graphql/rules.ts'
import { encodeNodeId } from '../../kernel/nodeId.ts'
import type { Secret } from '../../kernel/secret.ts'
import { scope } from '../../kernel/rule.ts'
import { createApiKey, revokeApiKey, rotateApiKey } from './operations.ts'

const own = scope('user:token')

export const ApiKey = builder.prismaNode('ApiKey', {
  description: 'A credential for programs. Its secret is shown once, at creation.',
  id: { field: 'id', rule: own },
  select: { id: true },
  fields: (t) => ({
    name: t.exposeString('name', { rule: own, nullable: false }),
    hint: t.exposeString('hint', { rule: own, nullable: false, description: 'The last four characters.' }),
    scopes: t.exposeStringList('scopes', { rule: own, nullable: false }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: own, nullable: false }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', rule: own, nullable: true }),
    lastUsedAt: t.expose('lastUsedAt', { type: 'DateTime', rule: own, nullable: true }),
    revokedAt: t.expose('revokedAt', { type: 'DateTime', rule: own, nullable: true }),
    revokedReason: t.exposeString('revokedReason', { rule: own, nullable: true }),
    allowedCidrs: t.exposeStringList('allowedCidrs', {
      rule: own,
      nullable: false,
      description: 'Networks that it works from; empty: any.',
    }),
    allowedServices: t.idList({
      rule: own,
      nullable: false,
      description: 'Services that it reaches; empty: all of the organisation.',
      select: { allowedServiceIds: true },
      resolve: ({ allowedServiceIds }) => allowedServiceIds.map((id) => encodeNodeId('Service', id)),
    }),
    allowedOperations: t.idList({
      rule: own,
      nullable: false,
      description: 'Registered operations that it runs; empty: all of the organisation.',
      select: { allowedOperationIds: true },
      resolve: ({ allowedOperationIds }) => allowedOperationIds.map((id) => encodeNodeId('PersistedOperation', id)),
    }),
    requestsPerMinute: t.exposeInt('requestsPerMinute', { rule: own, nullable: true }),
    replacedBy: t.id({
      rule: own,
      nullable: true,
      description: 'The key that took its place at a rotation.',
      select: { replacedBy: { select: { id: true } } },
      resolve: ({ replacedBy }) => (replacedBy ? encodeNodeId('ApiKey', replacedBy.id) : null),
    }),
    owner: t.relation('user', { rule: own, nullable: true }),
  }),
})

builder.queryField('apiKeys', (t) =>
  t.prismaConnection({
    type: ApiKey,
    cursor: 'id',
    rule: own,
    description:
      'Your keys in this organisation, newest first; for administrators who gave a second factor in this session, every member’s.',
    resolve: (query, _root, _args, { tx }) => tx.apiKey.findMany({ ...query, orderBy: { id: 'desc' } }),
  }),
)

const CreatedApiKey = builder.objectRef<{ apiKey: { id: string }; secret: Secret }>('CreatedApiKey').implement({
  description: 'The only answer that ever holds the secret.',
  fields: (t) => ({
    apiKey: t.field({ type: ApiKey, rule: inherited, nullable: true, resolve: ({ apiKey }) => apiKey }),
    secret: t.string({
      dataClass: 'secret',
      rule: inherited,
      nullable: false,
      resolve: ({ secret }) => secret.reveal(),
    }),
  }),
})

expose(createApiKey, { type: CreatedApiKey, description: 'Makes a key. Store the secret now: it is not shown again.' })
expose(rotateApiKey, {
  type: CreatedApiKey,
  description: 'Gives a new key in the place of one of yours, which works on until the overlap ends.',
})
expose(revokeApiKey, {
  type: ApiKey,
  description: 'Ends a key at once, on every instance, with those that it replaced and those that it made.',
})
