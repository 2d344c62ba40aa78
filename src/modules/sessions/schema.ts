import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { inherited } from '../../graphql/rules.ts'
import { scope } from '../../kernel/rule.ts'
import { endOtherSessions, endSession } from './list.ts'

export const Session = builder.prismaNode('Session', {
  description: 'A sign-in of yours that may still stand.',
  id: { field: 'id', rule: scope('user:read') },
  select: { id: true },
  fields: (t) => ({
    userAgent: t.exposeString('userAgent', {
      dataClass: 'personal',
      rule: scope('user:read'),
      nullable: true,
      description: 'What the device called itself.',
    }),
    ip: t.exposeString('ip', { dataClass: 'personal', rule: scope('user:read'), nullable: true }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: scope('user:read'), nullable: false }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', rule: scope('user:read'), nullable: false }),
    lastUsedAt: t.expose('lastUsedAt', {
      type: 'DateTime',
      rule: scope('user:read'),
      nullable: true,
      description: 'To the minute.',
    }),
    current: t.boolean({
      rule: scope('user:read'),
      nullable: false,
      description: 'The one that this request is part of.',
      resolve: ({ id }, _args, { actor }) => actor.kind === 'user' && actor.credentialId === id,
    }),
  }),
})

const EndedSession = builder.objectRef<{ id: string }>('EndedSession').implement({
  description: 'It is over: its tokens are refused from the next request on, on every instance.',
  fields: (t) => ({
    id: t.globalID({ rule: inherited, nullable: false, resolve: ({ id }) => ({ type: 'Session', id }) }),
  }),
})
expose(endSession, { type: EndedSession, description: 'Ends one of your sessions, here or on another device.' })

const EndedSessions = builder.objectRef<{ count: number }>('EndedSessions').implement({
  description: 'They are over, in every organisation.',
  fields: (t) => ({ count: t.exposeInt('count', { rule: inherited, nullable: false }) }),
})
expose(endOtherSessions, { type: EndedSessions, description: 'Ends every session of yours but this one.' })
