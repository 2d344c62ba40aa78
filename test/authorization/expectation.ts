import type { Person } from '../harness/seed.ts'
import type { Credential } from '../harness/world.ts'

/**
 * What a declared rule comes to, worked out apart from the code that enforces it: from the plain facts that the schema
 * carries and from the domain's own table of roles and scopes, written out once more.
 */
export type Declared = {
  public: boolean
  platform: boolean
  scopes: readonly string[]
  role: string | null
  stepUp: boolean
  row: { name: string } | null
}

export type Relation = 'own' | 'colleague' | 'foreign'
export const relations: Relation[] = ['own', 'colleague', 'foreign']

const ascending = ['VIEWER', 'DEVELOPER', 'ORG_ADMIN']
const everybody = ['mcp:read', 'user:read', 'user:write', 'org:read']
const roleTable: Record<string, string[]> = {
  VIEWER: everybody,
  DEVELOPER: [...everybody, 'mcp:write', 'user:token'],
  ORG_ADMIN: [...everybody, 'mcp:write', 'user:token', 'mcp:admin', 'org:write', 'org:admin'],
}

export type Principal = {
  name: string
  credential: Credential
  kind: 'nobody' | 'person' | 'key' | 'ended'
  role: string
  scopes: readonly string[]
  /** A second factor in this session: fresh, given at some time, or none. */
  factor: 'fresh' | 'old' | 'none'
}

export const personOf = (name: string, person: Person, factor: Principal['factor']): Principal => ({
  name,
  credential: { authorization: person.authorization },
  kind: 'person',
  role: person.role,
  scopes: roleTable[person.role] ?? [],
  factor,
})

export const nobody: Principal = { name: 'anonymous', credential: {}, kind: 'nobody', role: '', scopes: [], factor: 'none' } // prettier-ignore

export type Verdict = 'granted' | 'UNAUTHENTICATED' | 'FORBIDDEN' | 'MFA_REQUIRED'

const reaches = (role: string, least: string): boolean => ascending.indexOf(role) >= ascending.indexOf(least)

/** The verdict on everything of a rule but its row. */
export function verdict(principal: Principal, rule: Declared): Verdict {
  if (principal.kind === 'ended') return 'UNAUTHENTICATED'
  if (rule.public && !rule.platform) return 'granted'
  if (principal.kind === 'nobody') return 'UNAUTHENTICATED'
  if (rule.platform) return 'FORBIDDEN'
  if (rule.scopes.some((scope) => !principal.scopes.includes(scope))) return 'FORBIDDEN'
  if (rule.role && !reaches(principal.role, rule.role)) return 'FORBIDDEN'
  if (rule.stepUp && principal.kind === 'key') return 'FORBIDDEN'
  return rule.stepUp && principal.factor !== 'fresh' ? 'MFA_REQUIRED' : 'granted'
}

/** Row policies by name. A new one says here, in its own words, whom it lets at whose row. */
export const rowPolicies: Record<string, (principal: Principal, relation: Relation) => boolean> = {
  selfOrAdmin: ({ role }, relation) => relation === 'own' || (relation === 'colleague' && role === 'ORG_ADMIN'),
}

const organizationWide = (_principal: Principal, relation: Relation): boolean => relation !== 'foreign'
const ownOr =
  (also: (principal: Principal) => boolean) =>
  (principal: Principal, relation: Relation): boolean =>
    relation === 'own' || (relation === 'colleague' && also(principal))
/** Other people's records are for a person who holds the scope, in a session in which they gave a second factor. */
const monitors =
  (scope: string) =>
  ({ kind, scopes, factor }: Principal): boolean =>
    kind === 'person' && factor !== 'none' && scopes.includes(scope)

/** Whose rows a caller can reach by id, whatever their fields then say. A new type of node says it here. */
export const reachable: Record<string, (principal: Principal, relation: Relation) => boolean> = {
  User: organizationWide,
  Organization: organizationWide,
  Membership: organizationWide,
  Service: organizationWide,
  Collection: organizationWide,
  PersistedOperation: organizationWide,
  ApiKey: ownOr(monitors('org:admin')),
  RequestLogEntry: ownOr(monitors('mcp:admin')),
  // A developer's by role; an administrator, and a key of one, is asked for the factor as for every record.
  Usage: ownOr((principal) =>
    principal.role === 'DEVELOPER' ? principal.scopes.includes('org:read') : monitors('org:admin')(principal),
  ),
  AuditEvent: (principal, relation) =>
    principal.role === 'ORG_ADMIN' &&
    principal.scopes.includes('org:read') &&
    ownOr(monitors('org:read'))(principal, relation),
  SecondFactor: ownOr(() => false),
  Session: ownOr(() => false),
  Invitation: ({ scopes }, relation) => relation !== 'foreign' && scopes.includes('org:admin'),
}

type Stricter = (principal: Principal, relation: Relation) => Verdict | null
const notForKeys: Stricter = ({ kind }) => (kind === 'key' ? 'FORBIDDEN' : null)
/** Everybody here has a second factor, and so needs it fresh to change the factors. */
const byFactor: Stricter = ({ kind, factor }) =>
  kind === 'key' ? 'FORBIDDEN' : kind === 'person' && factor !== 'fresh' ? 'MFA_REQUIRED' : null
/**
 * A row of another person, on which this scope lets one act: in person, with a fresh factor. Who gave none sees no row of
 * others, and is told the same of one that is not there; with an old one, another organisation's is as absent.
 */
const onRowsOfPeople =
  (scope: string): Stricter =>
  ({ kind, scopes, factor }, relation) => {
    if (relation === 'own' || !scopes.includes(scope)) return null
    if (kind === 'key') return 'FORBIDDEN'
    return factor === 'none' || (factor === 'old' && relation === 'colleague') ? 'MFA_REQUIRED' : null
  }

/**
 * Fields and verbs that refuse more than their rule says, since it depends on a row that no rule knows: whether one has a
 * second factor, which key asks. Everything else that refuses without saying so in the schema is a difference.
 */
export const stricterThanDeclared: Record<string, Stricter> = {
  'Viewer.sessions': notForKeys,
  'Mutation.revokeApiKey': onRowsOfPeople('org:admin'),
  'Mutation.endSession': notForKeys,
  'Mutation.endOtherSessions': notForKeys,
  'Mutation.sendStepUpCode': notForKeys,
  'Mutation.startPasskeyStepUp': notForKeys,
  'Mutation.stepUp': notForKeys,
  'Mutation.changePassword': notForKeys,
  'Mutation.signOut': notForKeys,
  'Mutation.confirmTotp': notForKeys,
  'Mutation.confirmEmailCodes': notForKeys,
  'Mutation.registerPasskey': notForKeys,
  'Mutation.startPasskeyRegistration': byFactor,
  'Mutation.enrolTotp': byFactor,
  'Mutation.enrolEmailCodes': byFactor,
  'Mutation.removeSecondFactor': byFactor,
  'Mutation.regenerateRecoveryCodes': byFactor,
  // An account is connected by a person, in the session that began.
  'Mutation.connectService': notForKeys,
  'Mutation.connectSharedService': notForKeys,
  'Mutation.completeServiceConnection': notForKeys,
  // A key with one scope cannot give a new key that has others.
  'Mutation.rotateApiKey': ({ kind }, relation) => (kind === 'key' && relation === 'own' ? 'FORBIDDEN' : null),
  // None of these requests comes from a page of the platform's own, with its header.
  'Mutation.refreshSession': () => 'FORBIDDEN',
}
