import { builder } from '../../graphql/builder.ts'
import { inherited } from '../../graphql/rules.ts'
import { parse } from '../../kernel/operation.ts'
import { scope } from '../../kernel/rule.ts'
import { memberOf } from '../organizations/schema.ts'
import { callStatuses, recordsFilter, requestLogWhere, usageWhere } from './recordsFilter.ts'
import { watchCalls } from './watchCalls.ts'

const read = scope('mcp:read')
const readUsage = scope('user:read')

// Arguments that were not given are not there at all.
const filterOf = (args: object): object =>
  Object.fromEntries(Object.entries(args).filter(([name]) => !['first', 'last', 'after', 'before'].includes(name)))

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

const CallStatus = builder.enumType('CallStatus', { values: callStatuses, description: 'How a call ended.' })

builder.queryField('requestLog', (t) =>
  t.prismaConnection({
    type: RequestLogEntry,
    cursor: 'id',
    rule: read,
    description:
      'Calls through the gateway, newest first: your own, and for administrators who gave a second factor in this session everybody’s.',
    args: {
      service: t.arg.string({ rule: inherited, description: 'Slug of a service.' }),
      tool: t.arg.string({ rule: inherited }),
      userId: t.arg.id({
        rule: inherited,
        description: 'UUID of a user; others’ calls are there for administrators alone, after a second factor.',
      }),
      status: t.arg({ type: CallStatus, rule: inherited }),
      from: t.arg({ type: 'DateTime', rule: inherited, description: 'From this moment on.' }),
      until: t.arg({ type: 'DateTime', rule: inherited, description: 'Before this moment.' }),
    },
    resolve: (query, _root, args, { tx }) =>
      tx.requestLog.findMany({
        ...query,
        where: requestLogWhere(parse(recordsFilter, filterOf(args))),
        orderBy: { id: 'desc' },
      }),
  }),
)

const Usage = builder.prismaNode('UsageDaily', {
  name: 'Usage',
  description: 'Calls of one tool by one user on one day (UTC) that ended one way.',
  id: { field: 'id', rule: readUsage },
  select: { id: true },
  fields: (t) => ({
    day: t.string({
      rule: readUsage,
      nullable: false,
      select: { day: true },
      resolve: ({ day }) => day.toISOString().slice(0, 10),
    }),
    service: t.exposeString('serviceSlug', { rule: readUsage, nullable: false }),
    tool: t.exposeString('tool', { rule: readUsage, nullable: false }),
    userId: t.exposeString('userId', { rule: readUsage, nullable: false }),
    status: t.exposeString('status', {
      rule: readUsage,
      nullable: false,
      description: 'How these calls ended; `unknown` for those counted before it was told apart.',
    }),
    calls: t.exposeInt('calls', { rule: readUsage, nullable: false }),
    errors: t.exposeInt('errors', { rule: readUsage, nullable: false }),
    totalDurationMs: t.float({
      rule: readUsage,
      nullable: false,
      select: { totalDurationMs: true },
      resolve: ({ totalDurationMs }) => Number(totalDurationMs),
    }),
    maxDurationMs: t.exposeInt('maxDurationMs', { rule: readUsage, nullable: false }),
  }),
})

builder.queryField('usage', (t) =>
  t.prismaConnection({
    type: Usage,
    cursor: 'id',
    rule: readUsage,
    description:
      'Daily totals, newest day first: your own, and with `org:read` for developers the organisation’s; for administrators too, after a second factor.',
    args: {
      service: t.arg.string({ rule: inherited, description: 'Slug of a service.' }),
      tool: t.arg.string({ rule: inherited }),
      userId: t.arg.id({ rule: inherited, description: 'UUID of a user.' }),
      status: t.arg({ type: CallStatus, rule: inherited }),
      from: t.arg({ type: 'DateTime', rule: inherited, description: 'From this day on (UTC).' }),
      until: t.arg({ type: 'DateTime', rule: inherited, description: 'Up to this day (UTC), exclusive.' }),
    },
    resolve: (query, _root, args, { tx }) =>
      tx.usageDaily.findMany({
        ...query,
        where: usageWhere(parse(recordsFilter, filterOf(args))),
        orderBy: [{ day: 'desc' }, { id: 'desc' }],
      }),
  }),
)

builder.subscriptionField('calls', (t) =>
  t.prismaField({
    type: RequestLogEntry,
    rule: scope('mcp:admin'),
    nullable: true,
    description:
      'Every call of the organisation as it is recorded, over server-sent events; your own alone in a session without a second factor. It ends with the credential, and after the life of an access token in any case.',
    args: {
      service: t.arg.string({ rule: inherited, description: 'Slug of a service.' }),
      tool: t.arg.string({ rule: inherited }),
      userId: t.arg.id({ rule: inherited, description: 'UUID of a user.' }),
      status: t.arg({ type: CallStatus, rule: inherited }),
    },
    subscribe: (_root, args, context) =>
      watchCalls(context.platform, memberOf(context), parse(recordsFilter, filterOf(args)), context.signal),
    resolve: (query, { id }, _args, { tx }) => tx.requestLog.findFirst({ ...query, where: { id } }),
  }),
)
