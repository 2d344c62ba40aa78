import {
  authenticatedBit,
  effectiveScopes,
  freshMfaBit,
  interactiveBit,
  mfaBit,
  roleMask,
  scopesMask,
  type Role,
  type Scope,
} from './permissions.ts'

/** How long a second factor counts as fresh for administrative actions. */
export const stepUpWindowSeconds = 600

/** Where a request came from; recorded in the audit trail, the request log and the session list. */
export type Origin = { ip: string | null; userAgent: string | null; requestId: string }

type Common = { origin: Origin; /** Bits of `permissions.ts`. */ permissions: number; scopes: readonly Scope[] }

export type Anonymous = Common & { kind: 'anonymous' }
/** The platform itself: sign-in, jobs, the command line. Its database role is its own, and it is never made from a request's headers. */
export type System = Common & { kind: 'system' }
/** What an API key is limited to, beside its scopes. */
export type KeyLimits = {
  /** Null: every service of the organisation. */
  serviceIds: readonly string[] | null
  /** Null: every registered operation of the organisation. */
  operationIds: readonly string[] | null
  requestsPerMinute: number | null
}
/** Somebody who acts in exactly one organisation, through a session (`user`) or an API key (`apiKey`). */
export type Member = Common & {
  kind: 'user' | 'apiKey'
  userId: string
  orgId: string
  role: Role
  /** The session's or the API key's id. */
  credentialId: string
  mfaAt: Date | null
  limits?: KeyLimits
}

/** One principal for all callers, made at the edge, passed down, never re-read from a header. */
export type Actor = Anonymous | System | Member

const nowhere: Origin = { ip: null, userAgent: null, requestId: 'internal' }

export const anonymous = (origin: Origin = nowhere): Anonymous => ({
  kind: 'anonymous',
  origin,
  permissions: 0,
  scopes: [],
})

export const system = (origin: Origin = nowhere): System => ({ kind: 'system', origin, permissions: 0, scopes: [] })

type MemberFacts = Pick<Member, 'kind' | 'userId' | 'orgId' | 'role' | 'credentialId' | 'mfaAt' | 'origin'> & {
  /** The scopes the credential was given; the role's limits are applied here. */
  given: readonly string[]
  limits?: KeyLimits
}

/** A member with the permissions that role, credential and second factor give at this moment. */
export function member({ given, ...facts }: MemberFacts, now: Date): Member {
  const scopes = effectiveScopes(facts.role, given)
  const fresh = facts.mfaAt !== null && now.getTime() - facts.mfaAt.getTime() < stepUpWindowSeconds * 1000
  const ofPerson = interactiveBit | (facts.mfaAt === null ? 0 : mfaBit) | (fresh ? freshMfaBit : 0)
  const permissions =
    authenticatedBit | roleMask(facts.role) | scopesMask(scopes) | (facts.kind === 'user' ? ofPerson : 0)
  return { ...facts, scopes, permissions }
}

export const isMember = (actor: Actor): actor is Member => actor.kind === 'user' || actor.kind === 'apiKey'

/** The same actor as they stand at another moment: a second factor that was fresh grows old within a stream. */
export const asOf = (actor: Actor, now: Date): Actor =>
  isMember(actor) ? member({ ...actor, given: actor.scopes }, now) : actor

/** Whether a second factor was given in this session, at sign-in or since; reading other people's records takes that. */
export const gaveFactor = ({ permissions }: Actor): boolean => (permissions & mfaBit) !== 0

/** Whether a credential may reach a service at all; what it may do there is the scopes' affair. */
export const reaches = ({ limits }: Member, serviceId: string): boolean =>
  !limits?.serviceIds || limits.serviceIds.includes(serviceId)
