import type { Member } from '../../kernel/actor.ts'
import { rank } from '../../kernel/permissions.ts'
import { rowPolicy } from '../../kernel/rule.ts'

/** A person's own data, or an administrator's look at it. */
export const selfOrAdmin = rowPolicy<{ id: string }>({
  name: 'selfOrAdmin',
  permits: (actor: Member, user) => user.id === actor.userId || rank(actor.role) >= rank('ORG_ADMIN'),
})
