import { isMember, type Actor, type Member, type Origin } from '../kernel/actor.ts'
import { AppError } from '../kernel/errors.ts'
import type { Platform } from '../kernel/platform.ts'
import { sourceOf, tenantOf } from '../kernel/source.ts'
import { load } from './load.ts'
import { RateLimited, rateLimitFields, throttle, type Standing, type Throttle } from '../kernel/throttle.ts'

// While the shared counters are away each instance counts alone: an outage of theirs must not become an outage of ours.
const minute = { windowSeconds: 60, withoutStore: 'local' } as const

const sources = throttle('source', (config) => ({ limit: config.anonymousRequestsPerSourcePerMinute, ...minute }))
const credentials = throttle('credential', (config) => ({
  limit: config.costPerCredentialPerMinute,
  unit: 'cost',
  ...minute,
}))
const users = throttle('user', (config) => ({ limit: config.costPerUserPerMinute, unit: 'cost', ...minute }))
const organizations = throttle('organization', (config) => ({
  limit: config.costPerOrganizationPerMinute,
  unit: 'cost',
  ...minute,
}))
/** The limit that a key's maker gave it; each key has its own. */
const keys = throttle('key', () => ({ limit: 1, ...minute }))

/** What one call of the MCP endpoint counts for: as much as one mutation. */
export const mcpCallCost = 10

/** What the limits know of one request, for its answer. */
const standings = new WeakMap<Origin, Map<string, Standing>>()

function note(origin: Origin, standing: Standing): Standing {
  const known = standings.get(origin)
  if (!known) standings.set(origin, new Map([[standing.policy, standing]]))
  else known.set(standing.policy, standing)
  return standing
}

async function spend(
  limiter: Throttle | null,
  origin: Origin,
  key: string,
  points: number,
  limit?: number,
): Promise<Standing | null> {
  if (!limiter) return null
  try {
    return note(origin, await limiter.consume(key, points, limit))
  } catch (error) {
    if (error instanceof RateLimited) note(origin, error.standing)
    throw error
  }
}

async function chargeKey(
  platform: Platform,
  { kind, limits, credentialId, origin }: Member,
  requests = 1,
): Promise<void> {
  if (kind === 'apiKey' && limits?.requestsPerMinute)
    await spend(keys(platform), origin, credentialId, requests, limits.requestsPerMinute)
}

/** Lets a request in when it is its organisation's turn, for work that is the process's own and not a wait for others. */
export async function admittedInTurn(
  platform: Platform,
  origin: Origin,
  authentication: Promise<Actor>,
): Promise<Actor> {
  const actor = await admitted(platform, origin, authentication)
  if (isMember(actor)) load(platform).hear(actor.orgId)
  await load(platform).turn(origin, tenantOf(actor))
  return actor
}

/**
 * Lets a request in by who sends it. A good credential never depends on its neighbours: only requests without one, and
 * those whose credential is refused, count against their source.
 */
export async function admitted(platform: Platform, origin: Origin, authentication: Promise<Actor>): Promise<Actor> {
  const source = (): Promise<unknown> => spend(sources(platform), origin, sourceOf(origin), 1)
  let actor: Actor
  try {
    actor = await authentication
  } catch (error) {
    if (error instanceof AppError && error.status === 401) await source()
    throw error
  }
  load(platform).admit(origin, tenantOf(actor))
  if (isMember(actor)) await chargeKey(platform, actor)
  else await source()
  return actor
}

/**
 * Charges a credential, its user and its organisation with an operation's exact cost, before it runs. Answers what is
 * left to the one that has least; a caller without a credential is counted by source alone.
 */
export async function charge(platform: Platform, actor: Actor, cost: number): Promise<number | null> {
  if (!isMember(actor)) return null
  const { origin, credentialId, userId, orgId } = actor
  const points = Math.max(1, Math.ceil(cost))
  const each = [
    await spend(credentials(platform), origin, credentialId, points),
    await spend(users(platform), origin, userId, points),
    await spend(organizations(platform), origin, orgId, points),
  ]
  const left = each.flatMap((standing) => (standing ? [standing.remaining] : []))
  return left.length ? Math.min(...left) : null
}

/** Charges a request that turned out to be several: each counts as if it had come alone. */
export async function chargeMore(platform: Platform, actor: Member, requests: number, cost: number): Promise<void> {
  await chargeKey(platform, actor, requests)
  await charge(platform, actor, requests * cost)
}

/** The `RateLimit` fields of a request's answer. */
export const limitFields = (origin: Origin): Record<string, string> =>
  rateLimitFields([...(standings.get(origin)?.values() ?? [])])
