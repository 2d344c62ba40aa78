/** Roles in ascending order; each holds all that the ones before it hold. */
export const roles = ['VIEWER', 'DEVELOPER', 'ORG_ADMIN'] as const
export type Role = (typeof roles)[number]

/** The catalogue of scopes: the lowest role that can hold each, and what it allows. The only place where a scope is named. */
export const scopeCatalogue = {
  'mcp:read': { from: 'VIEWER', meaning: 'Use MCP services, read operations' },
  'mcp:write': { from: 'DEVELOPER', meaning: 'Configure MCP services; call tools that write' },
  'mcp:admin': {
    from: 'ORG_ADMIN',
    meaning: 'Organisational MCP settings: shared credentials, tool policy, monitoring',
  },
  'user:read': { from: 'VIEWER', meaning: 'Read the own profile and the own usage' },
  'user:write': { from: 'VIEWER', meaning: 'Change the own profile' },
  'user:token': { from: 'DEVELOPER', meaning: 'Manage the own API keys and service tokens' },
  'org:read': { from: 'VIEWER', meaning: 'Read organisation information' },
  'org:write': { from: 'ORG_ADMIN', meaning: 'Change organisation settings' },
  'org:admin': { from: 'ORG_ADMIN', meaning: 'Manage members, invitations and billing' },
} as const satisfies Record<string, { from: Role; meaning: string }>

export type Scope = keyof typeof scopeCatalogue
export const scopes = Object.keys(scopeCatalogue) as [Scope, ...Scope[]]

export const rank = (role: Role): number => roles.indexOf(role)

export const isScope = (text: string): text is Scope => Object.hasOwn(scopeCatalogue, text)

/** What a role can hold at the most. */
export const scopesOf = (role: Role): Scope[] =>
  scopes.filter((scope) => rank(role) >= rank(scopeCatalogue[scope].from))

/** A credential's effective scopes: what its role can hold ∩ what the credential was given. */
export const effectiveScopes = (role: Role, given: readonly string[]): Scope[] =>
  scopesOf(role).filter((scope) => given.includes(scope))

// One bit a permission, so that a rule is checked by one `&`: scopes first, then roles, then facts of the credential.
const scopeBit = new Map<Scope, number>(scopes.map((scope, i) => [scope, 1 << i]))
const roleBit = new Map<Role, number>(roles.map((role, i) => [role, 1 << (scopes.length + i)]))
const factBit = (i: number): number => 1 << (scopes.length + roles.length + i)

export const authenticatedBit = factBit(0)
/** A person at a browser or terminal, as opposed to an API key. */
export const interactiveBit = factBit(1)
/** A second factor was given within the step-up window. */
export const freshMfaBit = factBit(2)
/** A second factor was given in this session, at sign-in or since, however long ago. */
export const mfaBit = factBit(3)

export const scopesMask = (list: readonly Scope[]): number =>
  list.reduce((mask, scope) => mask | (scopeBit.get(scope) ?? 0), 0)

/** The bit that proves "at least this role". */
export const atLeastMask = (role: Role): number => roleBit.get(role) ?? 0

/** The bits of a role: its own and those of every role below. */
export const roleMask = (role: Role): number =>
  roles.filter((each) => rank(each) <= rank(role)).reduce((mask, each) => mask | atLeastMask(each), 0)
