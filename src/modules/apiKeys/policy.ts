import { rowPolicy } from '../../kernel/rule.ts'

export const owner = rowPolicy<{ userId: string }>({
  name: 'owner',
  permits: (actor, key) => key.userId === actor.userId,
})

/** One's own key, or any key of the organisation for who administers members. */
export const ownerOrOrgAdmin = rowPolicy<{ userId: string }>({
  name: 'ownerOrOrgAdmin',
  permits: (actor, key) => key.userId === actor.userId || actor.scopes.includes('org:admin'),
})
