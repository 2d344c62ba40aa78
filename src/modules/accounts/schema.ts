import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { allOf, scope } from '../../kernel/rule.ts'
import { updateProfile } from './operations.ts'
import { selfOrAdmin } from './policy.ts'

export const User = builder.prismaNode('User', {
  description: 'A person, as colleagues in the same organisation see them.',
  id: { field: 'id', rule: scope('org:read') },
  select: { id: true },
  fields: (t) => ({
    name: t.exposeString('name', { dataClass: 'personal', rule: scope('org:read'), nullable: false }),
    email: t.exposeString('email', {
      dataClass: 'personal',
      rule: allOf(scope('org:read'), selfOrAdmin),
      description: 'To the person and to administrators.',
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: scope('org:read'), nullable: false }),
  }),
})

expose(updateProfile, { type: User, description: 'Changes your own profile.' })
