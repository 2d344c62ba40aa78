import { z } from 'zod'
import type { Prisma } from '../../generated/prisma/client.ts'
import { nodeId } from '../../kernel/nodeId.ts'

/** How a call ended. */
export const callStatuses = [
  'ok',
  'tool_error',
  'denied',
  'limited',
  'invalid_arguments',
  'blocked',
  'upstream_error',
  'upstream_timeout',
  'cancelled',
] as const

/** What records are looked for by; every part that is given must fit. */
export const recordsFilter = z.strictObject({
  service: z.string().max(200).nullish(),
  tool: z.string().max(500).nullish(),
  userId: nodeId('User').nullish(),
  status: z.enum(callStatuses).nullish(),
  from: z.coerce.date().nullish(),
  until: z.coerce.date().nullish(),
})
export type RecordsFilter = z.infer<typeof recordsFilter>

const common = ({ service, tool, userId, status }: RecordsFilter) => ({
  ...(service ? { serviceSlug: service } : {}),
  ...(tool ? { tool } : {}),
  ...(userId ? { userId } : {}),
  ...(status ? { status } : {}),
})
const within = ({ from, until }: RecordsFilter) =>
  from || until ? { ...(from ? { gte: from } : {}), ...(until ? { lt: until } : {}) } : undefined

/** Whose rows there are is not said here: the door to the database knows. */
export function requestLogWhere(filter: RecordsFilter): Prisma.RequestLogWhereInput {
  const time = within(filter)
  return { ...common(filter), ...(time ? { createdAt: time } : {}) }
}

export function usageWhere(filter: RecordsFilter): Prisma.UsageDailyWhereInput {
  const time = within(filter)
  return { ...common(filter), ...(time ? { day: time } : {}) }
}
