import { z } from 'zod'
import type { Actor, Member } from '../../kernel/actor.ts'
import { AppError } from '../../kernel/errors.ts'
import { nodeId } from '../../kernel/nodeId.ts'
import { operation } from '../../kernel/operation.ts'
import { scope } from '../../kernel/rule.ts'

/** Sessions are a person's affair; a key that leaked must neither see where its owner is signed in nor sign them out. */
export function person(actor: Actor): Member {
  if (actor.kind === 'user') return actor
  throw new AppError('FORBIDDEN', 'Only a person who signed in can do this, not an API key.')
}

/** One's own alone, of whichever organisation: row level security finds no other. */
export const endSession = operation({
  name: 'endSession',
  requires: scope('user:write'),
  input: z.strictObject({ id: nodeId('Session') }),
  target: {
    noun: 'session',
    find: (tx, { id }, { actor }) =>
      tx.session.findFirst({ where: { id, userId: person(actor).userId, revokedAt: null }, select: { id: true } }),
  },
  run: ({ tx, now }, { id }) => tx.session.update({ where: { id }, data: { revokedAt: now }, select: { id: true } }),
  audit: ({ id }) => ({ action: 'session.ended', target: id }),
})

export const endOtherSessions = operation({
  name: 'endOtherSessions',
  requires: scope('user:write'),
  input: z.strictObject({}),
  run: async ({ tx, actor, now }) => {
    const { userId, credentialId } = person(actor)
    const others = { userId, revokedAt: null, id: { not: credentialId } }
    return tx.session.updateMany({ where: others, data: { revokedAt: now } })
  },
  audit: ({ count }) => ({ action: 'session.othersEnded', detail: { count } }),
})
