import { builder } from '../../graphql/builder.ts'
import { enumType } from '../../graphql/input.ts'
import { scope } from '../../kernel/rule.ts'
import { secondFactorMethods } from './factors.ts'

export const SecondFactorMethod = enumType(
  'SecondFactorMethod',
  secondFactorMethods,
  'What a second factor is proved by: a passkey, an authenticator app, a code by e-mail, or a recovery code.',
)

const SecondFactorKind = builder.enumType('SecondFactorKind', {
  values: ['TOTP', 'EMAIL', 'PASSKEY'] as const,
  description: 'An authenticator app (RFC 6238), codes by e-mail, or a passkey (WebAuthn).',
})

const own = scope('user:read')

export const SecondFactor = builder.prismaNode('SecondFactor', {
  description: 'A second factor of your own. Its secret is never shown again.',
  id: { field: 'id', rule: own },
  select: { id: true },
  fields: (t) => ({
    kind: t.expose('kind', { type: SecondFactorKind, rule: own, nullable: false }),
    label: t.exposeString('label', { rule: own, nullable: false }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: own, nullable: false }),
    confirmedAt: t.expose('confirmedAt', {
      type: 'DateTime',
      rule: own,
      nullable: true,
      description: 'Null while it is pending: it counts for nothing yet.',
    }),
    lastUsedAt: t.expose('lastUsedAt', { type: 'DateTime', rule: own, nullable: true }),
    backedUp: t.exposeBoolean('backedUp', {
      rule: own,
      nullable: false,
      description: 'Whether a passkey is kept by a service that syncs it between devices.',
    }),
  }),
})

builder.queryField('secondFactors', (t) =>
  t.prismaField({
    type: [SecondFactor],
    rule: own,
    cost: { assumedSize: 20 },
    description: 'Your second factors, oldest first; at most twenty.',
    resolve: (query, _root, _args, { tx }) => tx.secondFactor.findMany({ ...query, orderBy: { id: 'asc' }, take: 20 }),
  }),
)
