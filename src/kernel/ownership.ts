import type { Prisma } from '../generated/prisma/client.ts'
import { gaveFactor, type Member } from './actor.ts'
import { rank, type Scope } from './permissions.ts'

export type Model = Prisma.ModelName
export type Where<M extends Model> = NonNullable<Prisma.TypeMap['model'][M]['operations']['findFirst']['args']['where']>

/** Rows that are nobody's but the platform's, whoever asks. */
const platformAlone = (): null => null

/** The organisation's rows for who administers them with a second factor in their session; for everybody else their own. */
const ownOrAdministered = (member: Member, scope: Scope): { orgId: string; userId?: string } => {
  const { orgId, userId, scopes } = member
  return scopes.includes(scope) && gaveFactor(member) ? { orgId } : { orgId, userId }
}

/**
 * The organisation's figures are a developer's to read. An administrator's session opens more than figures, so that it
 * shows nothing of other people before a second factor was given in it.
 */
const analyses = (member: Member): boolean =>
  rank(member.role) >= rank('DEVELOPER') &&
  member.scopes.includes('org:read') &&
  (member.role !== 'ORG_ADMIN' || gaveFactor(member))

/**
 * Whose rows are whose: the rows of each model that a member may see or change at all, as a filter. The one declaration
 * of the second lock; the database door adds it to every statement (`database/owned.ts`), so that no query states it by
 * hand and none can forget it. Row level security says the same once more in SQL, apart from this;
 * test/authorization/agreement.test.ts holds the two to each other. A model that is not named here stops the compiler.
 */
export const ownership: { readonly [M in Model]: (member: Member) => Where<M> | null } = {
  User: ({ userId, orgId }) => ({ OR: [{ id: userId }, { memberships: { some: { orgId } } }] }),
  Organization: ({ orgId }) => ({ id: orgId }),
  Membership: ({ orgId }) => ({ orgId }),
  Invitation: ({ orgId, scopes }) => (scopes.includes('org:admin') ? { orgId } : null),

  // A person's own, in whichever organisation.
  Session: ({ userId }) => ({ userId }),
  SecondFactor: ({ userId }) => ({ userId }),

  ApiKey: (member) => ownOrAdministered(member, 'org:admin'),
  Service: ({ orgId, limits }) => (limits?.serviceIds ? { orgId, id: { in: [...limits.serviceIds] } } : { orgId }),
  ToolPolicy: ({ orgId }) => ({ orgId }),
  Collection: ({ orgId }) => ({ orgId }),
  CollectionTool: ({ orgId }) => ({ orgId }),
  ToolPin: ({ orgId }) => ({ orgId }),
  UserToken: ({ userId, orgId }) => ({ orgId, userId }),
  SharedToken: ({ orgId, scopes }) => (scopes.includes('mcp:admin') ? { orgId } : null),
  PersistedOperation: ({ orgId, limits }) =>
    limits?.operationIds ? { orgId, id: { in: [...limits.operationIds] } } : { orgId },
  OauthClient: ({ orgId, scopes }) => (scopes.includes('mcp:admin') ? { orgId } : null),
  // An administrator's own, and those of the organisation, which have no user. Said in plain columns; the rest is in SQL.
  OauthConnection: ({ userId, orgId, scopes }) => (scopes.includes('mcp:admin') ? { orgId } : { orgId, userId }),

  RequestLog: (member) => ownOrAdministered(member, 'mcp:admin'),
  UsageDaily: (member) => (analyses(member) ? { orgId: member.orgId } : { orgId: member.orgId, userId: member.userId }),
  AuditEvent: (member) =>
    member.role === 'ORG_ADMIN' && member.scopes.includes('org:read') ? ownOrAdministered(member, 'org:read') : null,

  AuditHead: platformAlone,
  DataKey: platformAlone,
  EmailCode: platformAlone,
  MailOutbox: platformAlone,
  OauthAuthorization: platformAlone,
  OneTimeToken: platformAlone,
  RecoveryCode: platformAlone,
  RefreshToken: platformAlone,
  SecondFactorTry: platformAlone,
  SignInChallenge: platformAlone,
  SigningKey: platformAlone,
  ThrottleCounter: platformAlone,
  WebauthnChallenge: platformAlone,
}
