import { randomUUID } from 'node:crypto'
import { system } from '../../src/kernel/actor.ts'
import { scopes as allScopes, type Role, type Scope } from '../../src/kernel/permissions.ts'
import { issueAccessToken } from '../../src/modules/sessions/tokens.ts'
import type { Credential, World } from './world.ts'

export const password = 'correct horse battery staple 42'

/** A person with a session in one organisation. */
export type Person = Credential & { authorization: string; userId: string; orgId: string; email: string; role: Role }

export type Organization = {
  id: string
  slug: string
  /** In a session whose second factor is fresh by the platform's clock; `fresh()` renews it. */
  admin: Person
  /** The same person in another session, in which no second factor was given. */
  adminWithoutMfa: Person
  developer: Person
  viewer: Person
  colleague: Person
}

const tokenOf = async (world: World, email: string): Promise<string> => {
  const { data, errors } = await world.graphql(
    'mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }',
    { input: { email, password } },
  )
  if (!data?.['signIn']) throw new Error(`sign-in failed: ${JSON.stringify(errors)}`)
  return `Bearer ${(data['signIn'] as { accessToken: string }).accessToken}`
}

const claimsOf = (authorization: string): { sid: string; org: string; sub: string } =>
  JSON.parse(Buffer.from(authorization.split('.')[1] ?? '', 'base64url').toString()) as ReturnType<typeof claimsOf>

/**
 * The person's session with a second factor given at this moment of the platform's clock, or before it, as `stepUp` leaves
 * it. The person enrols nothing, so their sign-in stays one step; test/sessions/mfa… go through the public door instead.
 */
export async function fresh(world: World, person: Person, secondsAgo = 0): Promise<Person> {
  const { database, clock } = world.platform
  const mfaAt = new Date(clock().getTime() - secondsAgo * 1000)
  const { sid } = claimsOf(person.authorization)
  const session = await database.transact(system(), (tx) =>
    tx.session.update({
      where: { id: sid },
      data: { mfaAt },
      select: { id: true, userId: true, orgId: true, expiresAt: true, mfaAt: true },
    }),
  )
  const held = { role: person.role, scopes: allScopes }
  const { accessToken } = await issueAccessToken(world.platform, session, held, clock())
  return { ...person, authorization: `Bearer ${accessToken}` }
}

/** Another session of the person, in which a second factor was given an hour ago: enough to read, too old to act. */
export const withOldFactor = async (world: World, person: Person): Promise<Person> =>
  fresh(world, { ...person, authorization: await tokenOf(world, person.email) }, 3600)

/** Adds a member with a role to an organisation, and signs them in. */
export async function addMember(world: World, orgId: string, role: Role): Promise<Person> {
  const email = `${role.toLowerCase()}-${randomUUID()}@example.com`
  const { hasher, database } = world.platform
  const { Secret } = await import('../../src/kernel/secret.ts')
  const passwordHash = await hasher.hash(new Secret(password), 'anybody')
  const userId = await database.transact(system(), async (tx) => {
    const user = await tx.user.create({ data: { email, name: `${role} person`, passwordHash }, select: { id: true } })
    await tx.membership.create({ data: { orgId, userId: user.id, role }, select: { id: true } })
    return user.id
  })
  return { authorization: await tokenOf(world, email), userId, orgId, email, role }
}

/** An organisation with one person of each role and a second developer. */
export async function seedOrganization(world: World, name = `Org ${randomUUID().slice(0, 8)}`): Promise<Organization> {
  const email = `admin-${randomUUID()}@example.com`
  const { data, errors } = await world.graphql(
    'mutation ($input: SignUpInput!) { signUp(input: $input) { accessToken } }',
    { input: { email, password, name: 'ORG_ADMIN person', organizationName: name } },
  )
  if (!data?.['signUp']) throw new Error(`sign-up failed: ${JSON.stringify(errors)}`)
  const authorization = `Bearer ${(data['signUp'] as { accessToken: string }).accessToken}`
  const { org, sub } = claimsOf(authorization)
  const adminWithoutMfa: Person = { authorization, userId: sub, orgId: org, email, role: 'ORG_ADMIN' }
  const admin = await fresh(world, { ...adminWithoutMfa, authorization: await tokenOf(world, email) })
  const developer = await addMember(world, org, 'DEVELOPER')
  const viewer = await addMember(world, org, 'VIEWER')
  const colleague = await addMember(world, org, 'DEVELOPER')
  const row = await world.platform.database.read(system(), (tx) =>
    tx.organization.findFirstOrThrow({ where: { id: org }, select: { slug: true } }),
  )
  return { id: org, slug: row.slug, admin, adminWithoutMfa, developer, viewer, colleague }
}

/** An API key of a person, as a credential. */
export async function createKey(
  world: World,
  person: Person,
  scopes: Scope[],
): Promise<Credential & { authorization: string; id: string; secret: string }> {
  const { data, errors } = await world.graphql(
    'mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { apiKey { id } secret } }',
    { input: { name: 'test', scopes } },
    { authorization: person.authorization },
  )
  if (!data?.['createApiKey']) throw new Error(`no key: ${JSON.stringify(errors)}`)
  const { apiKey, secret } = data['createApiKey'] as { apiKey: { id: string }; secret: string }
  return { authorization: `Bearer ${secret}`, id: apiKey.id, secret }
}

/** A service of the organisation at an endpoint; answers with its id. */
export async function createService(
  world: World,
  as: Person,
  input: { slug: string; endpoint: string; credentialMode?: string },
): Promise<string> {
  const { data, errors } = await world.graphql(
    'mutation ($input: CreateServiceInput!) { createService(input: $input) { id } }',
    { input: { name: input.slug, ...input } },
    { authorization: as.authorization },
  )
  if (!data?.['createService']) throw new Error(`no service: ${JSON.stringify(errors)}`)
  return (data['createService'] as { id: string }).id
}
