import { builder } from '../../graphql/builder.ts'
import { allOf, atLeast, scope } from '../../kernel/rule.ts'

const read = allOf(scope('org:read'), atLeast('ORG_ADMIN'))

const AuditEvent = builder.prismaNode('AuditEvent', {
  description: 'One link of the organisation’s tamper-evident trail.',
  id: { field: 'id', rule: read },
  select: { id: true },
  fields: (t) => ({
    action: t.exposeString('action', { rule: read, nullable: false }),
    outcome: t.exposeString('outcome', { rule: read, nullable: false, description: '`ok`, `denied` or `failed`.' }),
    actorKind: t.exposeString('actorKind', { rule: read, nullable: false }),
    userId: t.string({ rule: read, select: { userId: true }, resolve: ({ userId }) => userId }),
    target: t.exposeString('target', { rule: read, nullable: true }),
    detail: t.expose('detail', { type: 'JSON', rule: read, nullable: true }),
    ip: t.exposeString('ip', { dataClass: 'personal', rule: read, nullable: true }),
    requestId: t.exposeString('requestId', { rule: read, nullable: true }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: read, nullable: false }),
    sequence: t.string({
      rule: read,
      nullable: false,
      select: { sequence: true },
      resolve: ({ sequence }) => String(sequence),
    }),
    hash: t.exposeString('hash', {
      rule: read,
      nullable: false,
      description: 'SHA-256 over this event and the hash before it.',
    }),
  }),
})

builder.queryField('auditTrail', (t) =>
  t.prismaConnection({
    type: AuditEvent,
    cursor: 'id',
    rule: read,
    description:
      'What happened in the organisation, newest first; denials too. What you did yourself, in a session without a second factor.',
    resolve: (query, _root, _args, { tx }) => tx.auditEvent.findMany({ ...query, orderBy: { id: 'desc' } }),
  }),
)
