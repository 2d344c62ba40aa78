import { builder } from '../../graphql/builder.ts'
import type { GraphContext } from '../../graphql/context.ts'
import { expose } from '../../graphql/expose.ts'
import { enumType } from '../../graphql/input.ts'
import { inherited } from '../../graphql/rules.ts'
import { isMember, type Member } from '../../kernel/actor.ts'
import { AppError } from '../../kernel/errors.ts'
import { authenticated, scope } from '../../kernel/rule.ts'
import { User } from '../accounts/schema.ts'
import { SecondFactorMethod } from '../accounts/factorsSchema.ts'
import type { OpenedChallenge } from '../sessions/challenges.ts'
import { signIn, signOut, signedIn, type SignedIn } from '../sessions/operations.ts'
import { completeSignIn, signInWithPasskey } from '../sessions/secondStep.ts'
import { refreshSession } from '../sessions/refresh.ts'
import { signUp, updateOrganization } from './operations.ts'
import { role } from './policy.ts'

export const RoleEnum = enumType('Role', role, 'Ascending: each holds what the ones before it hold.')

/** The member behind a field whose rule admits members alone. */
export function memberOf({ actor }: Pick<GraphContext, 'actor'>): Member {
  if (isMember(actor)) return actor
  throw new AppError('UNAUTHENTICATED', 'Sign in, or send an API key.')
}

export const Membership = builder.prismaNode('Membership', {
  description: 'A user in an organisation.',
  id: { field: 'id', rule: scope('org:read') },
  select: { id: true },
  fields: (t) => ({
    role: t.expose('role', { type: RoleEnum, rule: scope('org:read'), nullable: false }),
    active: t.boolean({
      rule: scope('org:read'),
      nullable: false,
      select: { deactivatedAt: true },
      resolve: ({ deactivatedAt }) => deactivatedAt === null,
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: scope('org:read'), nullable: false }),
    user: t.relation('user', { rule: scope('org:read'), nullable: false }),
  }),
})

export const Organization = builder.prismaNode('Organization', {
  description: 'What a team shares: members, services, keys and records.',
  id: { field: 'id', rule: scope('org:read') },
  select: { id: true },
  fields: (t) => ({
    slug: t.exposeString('slug', {
      rule: scope('org:read'),
      nullable: false,
      description: 'Its part of `/mcp/{organization}/{service}`.',
    }),
    name: t.exposeString('name', { rule: scope('org:read'), nullable: false }),
    createdAt: t.expose('createdAt', { type: 'DateTime', rule: scope('org:read'), nullable: false }),
    requireMfa: t.exposeBoolean('requireMfa', {
      rule: scope('org:read'),
      nullable: false,
      description: 'Whether every member needs a second factor. Who has none can do nothing but enrol one.',
    }),
    members: t.relatedConnection('memberships', {
      cursor: 'id',
      rule: scope('org:read'),
      query: { orderBy: { id: 'asc' } },
    }),
  }),
})

export const Viewer = builder.objectRef<Member>('Viewer').implement({
  description: 'The caller: who you are, where, and what this credential may do.',
  fields: (t) => ({
    id: t.globalID({ rule: inherited, nullable: false, resolve: ({ userId }) => ({ type: 'User', id: userId }) }),
    kind: t.string({
      rule: inherited,
      nullable: false,
      description: '`user` or `apiKey`.',
      resolve: ({ kind }) => kind,
    }),
    role: t.field({ type: RoleEnum, rule: inherited, nullable: false, resolve: ({ role }) => role }),
    scopes: t.stringList({
      rule: inherited,
      nullable: false,
      description: 'What the role and the credential allow together.',
      resolve: ({ scopes }) => [...scopes],
    }),
    name: t.string({
      dataClass: 'personal',
      rule: scope('user:read'),
      resolve: async (viewer, _args, context) => (await self(viewer, context))?.name,
    }),
    email: t.string({
      dataClass: 'personal',
      rule: scope('user:read'),
      resolve: async (viewer, _args, context) => (await self(viewer, context))?.email,
    }),
    user: t.prismaField({
      type: User,
      rule: scope('user:read'),
      nullable: true,
      resolve: (query, viewer, _args, { tx }) => tx.user.findFirst({ ...query, where: { id: viewer.userId } }),
    }),
    organization: t.prismaField({
      type: Organization,
      rule: scope('org:read'),
      nullable: true,
      resolve: (query, viewer, _args, { tx }) => tx.organization.findFirst({ ...query, where: { id: viewer.orgId } }),
    }),
  }),
})

const selves = new WeakMap<GraphContext, Promise<{ name: string; email: string } | null>>()

/** Name and e-mail address of one answer cost one look-up. */
function self({ userId }: Member, context: GraphContext): Promise<{ name: string; email: string } | null> {
  const known = selves.get(context)
  if (known) return known
  const found = context.tx.user.findFirst({ where: { id: userId }, select: { name: true, email: true } })
  selves.set(context, found)
  return found
}

builder.queryField('viewer', (t) =>
  t.field({
    type: Viewer,
    rule: authenticated,
    description: 'The caller.',
    resolve: (_root, _args, context) => memberOf(context),
  }),
)

builder.queryField('organization', (t) =>
  t.prismaField({
    type: Organization,
    rule: scope('org:read'),
    nullable: true,
    description: 'The organisation that the credential acts in.',
    resolve: (query, _root, _args, context) =>
      context.tx.organization.findFirst({ ...query, where: { id: memberOf(context).orgId } }),
  }),
)

const SignInChallenge = builder.objectRef<OpenedChallenge>('SignInChallenge').implement({
  description: 'The password was right; a second factor is still to come. Five tries, five minutes, one use.',
  fields: (t) => ({
    id: t.string({
      dataClass: 'secret',
      rule: inherited,
      nullable: false,
      description:
        'For `completeSignIn`, `sendSignInCode` and `startPasskeySignIn`. Keep it as secret as the password.',
      resolve: ({ token }) => token.reveal(),
    }),
    methods: t.field({
      type: [SecondFactorMethod],
      rule: inherited,
      nullable: false,
      description: 'Any one of these will do.',
      resolve: ({ methods }) => methods,
    }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', rule: inherited, nullable: false }),
    message: t.string({
      rule: inherited,
      nullable: false,
      description: 'A sentence to show.',
      resolve: () => 'Give a second factor to finish signing in.',
    }),
  }),
})

type Entered =
  | { challenge: null; accessToken: null; actor: null; expiresAt: null }
  | (SignedIn & { challenge: null })
  | { challenge: OpenedChallenge; accessToken: null; actor: null }

const AuthPayload = builder.objectRef<Entered>('AuthPayload').implement({
  description:
    'A session that was just opened; the rest of the request acts as its user. Or, for an account with a second factor, the challenge that asks for it, and nothing else.',
  fields: (t) => ({
    accessToken: t.string({
      dataClass: 'secret',
      rule: inherited,
      nullable: true,
      description: 'Send as `Authorization: Bearer …`. Keep in memory only.',
      resolve: (p) => p.accessToken,
    }),
    expiresAt: t.field({
      type: 'DateTime',
      rule: inherited,
      nullable: true,
      resolve: (p) => (p.challenge ? null : p.expiresAt),
    }),
    challenge: t.field({
      type: SignInChallenge,
      rule: inherited,
      nullable: true,
      description: 'What `completeSignIn` finishes.',
      resolve: (p) => p.challenge,
    }),
    emailVerification: t.boolean({
      rule: inherited,
      nullable: false,
      description: 'The address is to be confirmed first; a mail says how.',
      resolve: (p) => p.challenge === null && p.accessToken === null,
    }),
    user: t.prismaField({
      type: User,
      rule: inherited,
      nullable: true,
      resolve: (query, { actor }, _args, { tx }) =>
        actor ? tx.user.findFirst({ ...query, where: { id: actor.userId } }) : null,
    }),
    organization: t.prismaField({
      type: Organization,
      rule: inherited,
      nullable: true,
      resolve: (query, { actor }, _args, { tx }) =>
        actor ? tx.organization.findFirst({ ...query, where: { id: actor.orgId } }) : null,
    }),
  }),
})

/** Issues the token of a session whose transaction has committed, and lets the rest of the request act as its user. */
async function enter(session: Parameters<typeof signedIn>[1], context: GraphContext): Promise<Entered> {
  const { platform, actor } = context
  const result = await signedIn({ platform, actor, now: platform.clock() }, session)
  context.become(result.actor)
  // A browser keeps it where no script reads it; only a session that was opened or refreshed has one to keep.
  const { refreshToken: token, expiresAt } = session
  if (token) context.cookies.change = { token, expiresAt }
  return { ...result, challenge: null }
}

expose(signUp, {
  type: AuthPayload,
  description:
    'Founds an organisation with you as its administrator. Where addresses are verified, every answer is the same and mail tells the rest: `verifyEmail`, then sign in.',
  resolve: ({ session }, context) =>
    session ? enter(session, context) : { challenge: null, accessToken: null, actor: null, expiresAt: null },
  changesActor: true,
})
expose(signIn, {
  type: AuthPayload,
  description: 'Opens a session, or answers with a challenge where the account has a second factor.',
  resolve: async ({ session, challenge }, context) =>
    session ? enter(session, context) : { challenge, accessToken: null, actor: null },
  changesActor: true,
})
expose(completeSignIn, {
  type: AuthPayload,
  description: 'Finishes a sign-in with a second factor.',
  resolve: enter,
  changesActor: true,
})
expose(signInWithPasskey, {
  type: AuthPayload,
  description: 'Opens a session with a passkey alone, which must ask for a finger, a face or a PIN.',
  resolve: enter,
  changesActor: true,
})
expose(updateOrganization, { type: Organization, description: 'Changes the organisation’s settings.' })

const SignedOut = builder.objectRef<{ id: string }>('SignedOut').implement({
  description: 'The session is over; its tokens are refused from now on.',
  fields: (t) => ({ sessionId: t.exposeID('id', { rule: inherited, nullable: false }) }),
})
expose(signOut, {
  type: SignedOut,
  description: 'Ends this session at once, on every instance.',
  resolve: (session, { cookies }) => {
    cookies.change = 'clear'
    return session
  },
})

expose(refreshSession, {
  type: AuthPayload,
  description:
    'Continues the session of the browser’s `__Host-refresh` cookie, which is replaced. Needs the platform’s own origin and the header `X-Requested-With: mcp-platform`.',
  fromRequest: {
    refreshToken: ({ cookies }) => cookies.refreshToken,
    sameOrigin: ({ cookies }) => cookies.sameOrigin,
  },
  resolve: enter,
  changesActor: true,
})
