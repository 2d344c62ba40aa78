import { personalRow } from '../../kernel/rule.ts'

export const owner = personalRow({ name: 'owner' })

/** One's own key, or any key of the organisation for who administers members. */
export const ownerOrOrgAdmin = personalRow({ name: 'ownerOrOrgAdmin', others: 'org:admin' })
