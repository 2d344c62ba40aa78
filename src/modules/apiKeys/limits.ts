import { isIP } from 'node:net'
import { z } from 'zod'
import { isMember, type Actor, type Member } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError, badInput, notFound } from '../../kernel/errors.ts'
import { nodeId } from '../../kernel/nodeId.ts'
import { contains } from '../../kernel/source.ts'

const network = z
  .string()
  .max(64)
  .transform((text, context) => {
    const family = isIP(text)
    const cidr = family === 4 ? `${text}/32` : family === 6 ? `${text}/128` : text
    // A caller over an IPv4-mapped address is known by its IPv4 address, so a network of mapped ones would match nobody.
    const mapped = cidr.toLowerCase().startsWith('::ffff:')
    if (!mapped && z.union([z.cidrv4(), z.cidrv6()]).safeParse(cidr).success) return cidr
    context.addIssue({ code: 'custom', message: 'expected a network such as 192.0.2.0/24 or 2001:db8::/32' })
    return z.NEVER
  })
  .meta({ graphql: 'String' })

/** The limits of a key, as they are given at its creation. */
export const keyLimits = {
  expiresAt: z.date().optional().describe('Default: it does not expire.'),
  allowedCidrs: z
    .array(network)
    .min(1)
    .max(50)
    .optional()
    .describe('Networks that the key works from, e.g. `["192.0.2.0/24"]`. Default: any.'),
  allowedServices: z
    .array(nodeId('Service'))
    .min(1)
    .max(100)
    .optional()
    .describe('Services that the key reaches. Default: all of the organisation.'),
  allowedOperations: z
    .array(nodeId('PersistedOperation'))
    .min(1)
    .max(100)
    .optional()
    .describe('Registered operations that the key runs, whose scopes it must hold. Default: all of the organisation.'),
  requestsPerMinute: z.number().int().min(1).max(600_000).optional().describe('Default: the platform’s own limits.'),
}
type Given = { [Name in keyof typeof keyLimits]?: z.output<(typeof keyLimits)[Name]> }

export type Limits = {
  expiresAt: Date | null
  allowedCidrs: string[]
  allowedServiceIds: string[]
  allowedOperationIds: string[]
  requestsPerMinute: number | null
}

const exceeds = (what: string): AppError =>
  new AppError('FORBIDDEN', `A key cannot go past the limits of the key that makes it: ${what}.`)

/** Nothing a key makes goes past the key's own limits; what is not given is inherited. */
function within(maker: Limits, wanted: Limits): Limits {
  const { expiresAt, allowedCidrs, allowedServiceIds, allowedOperationIds, requestsPerMinute } = maker
  if (expiresAt && wanted.expiresAt && wanted.expiresAt > expiresAt) throw exceeds('expiresAt')
  if (
    allowedCidrs.length &&
    !wanted.allowedCidrs.every((inner) => allowedCidrs.some((outer) => contains(outer, inner)))
  )
    throw exceeds('allowedCidrs')
  if (allowedServiceIds.length && !wanted.allowedServiceIds.every((id) => allowedServiceIds.includes(id)))
    throw exceeds('allowedServices')
  if (allowedOperationIds.length && !wanted.allowedOperationIds.every((id) => allowedOperationIds.includes(id)))
    throw exceeds('allowedOperations')
  if (requestsPerMinute && (wanted.requestsPerMinute ?? 0) > requestsPerMinute) throw exceeds('requestsPerMinute')
  return {
    expiresAt: wanted.expiresAt ?? expiresAt,
    allowedCidrs: wanted.allowedCidrs.length ? wanted.allowedCidrs : allowedCidrs,
    allowedServiceIds: wanted.allowedServiceIds.length ? wanted.allowedServiceIds : allowedServiceIds,
    allowedOperationIds: wanted.allowedOperationIds.length ? wanted.allowedOperationIds : allowedOperationIds,
    requestsPerMinute: wanted.requestsPerMinute ?? requestsPerMinute,
  }
}

async function makersLimits(tx: Tx, { kind, credentialId }: Member): Promise<Limits | null> {
  if (kind !== 'apiKey') return null
  return tx.apiKey.findUniqueOrThrow({
    where: { id: credentialId },
    select: {
      expiresAt: true,
      allowedCidrs: true,
      allowedServiceIds: true,
      allowedOperationIds: true,
      requestsPerMinute: true,
    },
  })
}

/** A key that could not run what it is made for is not made: every scope that its operations need is to be among its own. */
async function assertRuns(tx: Tx, operationIds: string[], held: readonly string[]): Promise<void> {
  if (!operationIds.length) return
  const found = await tx.persistedOperation.findMany({
    where: { id: { in: operationIds } },
    select: { requiredScopes: true, stepUp: true },
  })
  if (found.length !== operationIds.length) throw notFound('persisted operation')
  const needed = new Set(found.flatMap(({ requiredScopes }) => requiredScopes))
  const lacking = [...needed].filter((each) => !held.includes(each)).sort()
  if (lacking.length)
    throw new AppError('FORBIDDEN', 'The key would lack scopes that its operations need.', {
      extensions: { requires: { scopes: lacking } },
    })
  if (found.some(({ stepUp }) => stepUp))
    throw new AppError('FORBIDDEN', 'One of the operations needs a second factor, which no key can give.', {
      extensions: { requires: { stepUp: true } },
    })
}

/** The limits that a new key gets: what was asked for, checked, and never more than its maker's. */
export async function limitsOf(
  tx: Tx,
  actor: Actor,
  given: Given,
  held: readonly string[],
  now: Date,
): Promise<Limits> {
  if (!isMember(actor)) throw notFound('account')
  const { expiresAt, allowedCidrs = [], allowedServices = [], allowedOperations = [], requestsPerMinute = null } = given
  if (expiresAt && expiresAt <= now) throw badInput([{ path: ['expiresAt'], message: 'expected a time in the future' }])
  const allowedServiceIds = [...new Set(allowedServices)]
  if (allowedServiceIds.length) {
    const seen = await tx.service.count({ where: { id: { in: allowedServiceIds } } })
    if (seen !== allowedServiceIds.length) throw notFound('service')
  }
  const allowedOperationIds = [...new Set(allowedOperations)]
  const wanted = { expiresAt: expiresAt ?? null, allowedCidrs, allowedServiceIds, allowedOperationIds, requestsPerMinute } // prettier-ignore
  const maker = await makersLimits(tx, actor)
  const limits = maker ? within(maker, wanted) : wanted
  await assertRuns(tx, limits.allowedOperationIds, held)
  return limits
}
