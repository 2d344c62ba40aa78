import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import { mayGrant } from '../../src/modules/organizations/policy.ts'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { openMailbox, tokenIn, type Mailbox } from '../harness/mailbox.ts'
import {
  addMember,
  createKey,
  createService,
  fresh,
  password,
  seedOrganization,
  type Organization,
  type Person,
} from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'

const verb = (name: string, type: string, selection: string) =>
  `mutation ($input: ${type}Input!) { ${name}(input: $input) { ${selection} } }`
const texts = {
  inviteMember: verb('inviteMember', 'InviteMember', 'id email role acceptedAt'),
  revokeInvitation: verb('revokeInvitation', 'RevokeInvitation', 'id'),
  acceptInvitation: verb('acceptInvitation', 'AcceptInvitation', 'organizationName organizationSlug role'),
  changeRole: verb('changeRole', 'ChangeRole', 'id role'),
  deactivateMember: verb('deactivateMember', 'DeactivateMember', 'id active'),
  reactivateMember: verb('reactivateMember', 'ReactivateMember', 'id active'),
  removeMember: verb('removeMember', 'RemoveMember', 'userId'),
  signIn: verb('signIn', 'SignIn', 'accessToken organization { id }'),
}

describe('the members of an organisation', () => {
  let mailbox: Mailbox
  let database: TestDatabase
  let one: World
  let two: World
  let org: Organization
  let other: Organization
  let now = new Date()
  beforeAll(async () => {
    mailbox = await openMailbox()
    database = await createDatabase()
    const settings = { SMTP_URL: mailbox.url, EMAIL_VERIFICATION: 'off' }
    one = await createWorld(settings, { database, clock: () => now })
    two = database.embedded ? one : await createWorld(settings, { database, clock: () => now })
    org = await seedOrganization(one)
    other = await seedOrganization(one)
  })
  afterAll(async () => {
    await one.close()
    if (two !== one) await two.close()
    await database.drop()
    await mailbox.close()
  })

  const run = (name: keyof typeof texts, input: object, as: Partial<Person> = {}, world = one) =>
    world.graphql(texts[name], { input }, as.authorization ? { authorization: as.authorization } : {})
  const membershipOf = ({ userId, orgId }: Person) =>
    one.platform.database.read(system(), (tx) =>
      tx.membership.findFirstOrThrow({ where: { userId, orgId }, select: { id: true } }),
    )
  const viewer = (as: { authorization: string }, world = two) => world.graphql('{ viewer { id role } }', {}, as)
  const address = () => `p-${randomUUID()}@example.com`
  const signIn = (email: string, organization?: string, given = password) =>
    run('signIn', { email, password: given, ...(organization ? { organization } : {}) })
  async function invite(email: string, role = 'DEVELOPER', as: Person = org.admin) {
    const answer = await run('inviteMember', { email, role }, as)
    if (answer.errors.length) throw new Error(JSON.stringify(answer.errors))
    return { id: answer.data['inviteMember'].id as string, token: tokenIn(await mailbox.to(email)) }
  }

  it('are changed by administrators with a fresh second factor alone', async () => {
    const member = await addMember(one, org.id, 'VIEWER')
    const { id } = await membershipOf(member)
    const attempts = {
      inviteMember: { email: address(), role: 'VIEWER' },
      changeRole: { id, role: 'DEVELOPER' },
      deactivateMember: { id },
      reactivateMember: { id },
      removeMember: { id },
    } as const
    for (const [name, input] of Object.entries(attempts)) {
      expect((await run(name as keyof typeof texts, input)).code).toBe('UNAUTHENTICATED')
      expect((await run(name as keyof typeof texts, input, org.developer)).code).toBe('FORBIDDEN')
      expect((await run(name as keyof typeof texts, input, org.adminWithoutMfa)).code).toBe('MFA_REQUIRED')
      if ('id' in input) expect((await run(name as keyof typeof texts, input, other.admin)).code).toBe('NOT_FOUND')
    }
    expect((await viewer(member)).errors).toEqual([])
  })

  it('are never given more than the giver holds', () => {
    expect(mayGrant({ role: 'DEVELOPER' }, 'ORG_ADMIN')).toBe(false)
    expect(mayGrant({ role: 'DEVELOPER' }, 'DEVELOPER')).toBe(true)
  })

  it('lose the old role on their next request to any instance, and hold the new one after signing in', async () => {
    const member = await addMember(one, org.id, 'DEVELOPER')
    expect((await viewer(member)).data['viewer'].role).toBe('DEVELOPER')
    const changed = await run('changeRole', { ...(await membershipOf(member)), role: 'VIEWER' }, org.admin)
    expect(changed.data['changeRole'].role).toBe('VIEWER')
    expect((await viewer(member)).code).toBe('UNAUTHENTICATED')
    const again = await signIn(member.email)
    expect((await viewer({ authorization: `Bearer ${again.data['signIn'].accessToken}` })).data['viewer'].role).toBe('VIEWER') // prettier-ignore
  })

  it('are refused everywhere at once when deactivated, and come back without their old sessions', async () => {
    const member = await addMember(one, org.id, 'DEVELOPER')
    const key = await createKey(one, member, ['org:read'])
    const { data } = await one.graphql('mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { sha256 } }', { input: { document: '{ organization { id } }' } }, member) // prettier-ignore
    const byKey = () => two.post({ documentId: data['registerPersistedOperation'].sha256 }, key)
    expect((await byKey()).errors).toEqual([])
    const row = await membershipOf(member)
    expect((await run('deactivateMember', row, org.admin)).data['deactivateMember'].active).toBe(false)
    expect((await viewer(member)).code).toBe('UNAUTHENTICATED')
    expect((await byKey()).code).toBe('UNAUTHENTICATED')
    expect((await signIn(member.email)).code).toBe('INVALID_CREDENTIALS')
    expect((await run('reactivateMember', row, org.admin)).data['reactivateMember'].active).toBe(true)
    expect((await viewer(member)).code).toBe('UNAUTHENTICATED')
    expect((await signIn(member.email)).errors).toEqual([])
    expect((await byKey()).errors).toEqual([])
  })

  it('leave sessions, keys and service tokens behind when removed, and services to the organisation', async () => {
    const member = await addMember(one, org.id, 'DEVELOPER')
    const key = await createKey(one, member, ['org:read'])
    const slug = `s-${randomUUID().slice(0, 8)}`
    const service = await createService(one, member, { slug, endpoint: 'https://up.example/mcp', credentialMode: 'PERSONAL' }) // prettier-ignore
    expect((await run('removeMember', await membershipOf(member), org.admin)).errors).toEqual([])
    expect((await viewer(member)).code).toBe('UNAUTHENTICATED')
    expect((await two.post({ documentId: 'a'.repeat(64) }, key)).code).toBe('UNAUTHENTICATED')
    expect((await signIn(member.email)).code).toBe('INVALID_CREDENTIALS')
    const left = await one.platform.database.read(system(), async (tx) => ({
      keys: await tx.apiKey.count({ where: { userId: member.userId, revokedAt: null } }),
      sessions: await tx.session.count({ where: { userId: member.userId, revokedAt: null } }),
    }))
    expect(left).toEqual({ keys: 0, sessions: 0 })
    const kept = await one.graphql('query ($id: ID!) { node(id: $id) { id } }', { id: service }, org.admin)
    expect(kept.data['node']).toEqual({ id: service })
  })

  it('hand over what they registered and whom they invited: to the one who removes them, or to the one who is named', async () => {
    const registers = async (person: Person) => {
      const input = { document: `query Of${randomUUID().slice(0, 8).replace(/^/, 'x')} { viewer { id } }` }
      const { data } = await one.graphql<any>(verb('registerPersistedOperation', 'RegisterPersistedOperation', 'sha256'), { input }, person) // prettier-ignore
      return data.registerPersistedOperation.sha256 as string
    }
    const ownerOf = (sha256: string) =>
      one.platform.database.read(system(), (tx) => tx.persistedOperation.findFirstOrThrow({ where: { sha256 }, select: { userId: true } })) // prettier-ignore
    const [first, second] = [await addMember(one, org.id, 'DEVELOPER'), await addMember(one, org.id, 'ORG_ADMIN')]
    const [ofFirst, ofSecond] = [await registers(first), await registers(second)]
    const invited = await run('inviteMember', { email: `${randomUUID()}@example.com`, role: 'VIEWER' }, await fresh(one, second)) // prettier-ignore
    expect(invited.errors).toEqual([])
    const removal = async (person: Person, to?: Person) => ({ ...(await membershipOf(person)), ...(to ? { successorId: (await membershipOf(to)).id } : {}) }) // prettier-ignore
    for (const nobody of [other.developer, second])
      expect((await run('removeMember', await removal(second, nobody), org.admin)).code).toBe('NOT_FOUND')
    expect(await ownerOf(ofSecond)).toEqual({ userId: second.userId })
    expect((await run('removeMember', await removal(first), org.admin)).errors).toEqual([])
    expect((await run('removeMember', await removal(second, org.developer), org.admin)).errors).toEqual([])
    expect([await ownerOf(ofFirst), await ownerOf(ofSecond)]).toEqual([{ userId: org.admin.userId }, { userId: org.developer.userId }]) // prettier-ignore
    const invitations = await one.platform.database.read(system(), (tx) => tx.invitation.findMany({ where: { orgId: org.id, invitedBy: { in: [second.userId, org.developer.userId] } }, select: { invitedBy: true } })) // prettier-ignore
    expect(invitations).toEqual([{ invitedBy: org.developer.userId }])
  })

  it('always include an active administrator', async () => {
    const row = await membershipOf(org.admin)
    for (const [name, input] of [
      ['changeRole', { ...row, role: 'VIEWER' }],
      ['deactivateMember', row],
      ['removeMember', row],
    ] as const)
      expect((await run(name, input, org.admin)).code).toBe('CONFLICT')
    const second = await addMember(one, org.id, 'ORG_ADMIN')
    const secondRow = await membershipOf(second)
    await run('deactivateMember', secondRow, org.admin)
    expect((await run('removeMember', row, org.admin)).code).toBe('CONFLICT')
    await run('removeMember', secondRow, org.admin)
  })

  it('include one still when two administrators remove each other at the same moment, again and again', async () => {
    for (let round = 0; round < 5; round += 1) {
      const raced = await seedOrganization(one)
      const second = await fresh(one, await addMember(one, raced.id, 'ORG_ADMIN'))
      const [a, b] = [await membershipOf(raced.admin), await membershipOf(second)]
      const answers = await Promise.all([
        run('removeMember', b, raced.admin, one),
        run('changeRole', { ...a, role: 'VIEWER' }, second, two),
      ])
      const admins = await one.platform.database.read(system(), (tx) =>
        tx.membership.count({ where: { orgId: raced.id, role: 'ORG_ADMIN', deactivatedAt: null } }),
      )
      expect(admins).toBeGreaterThan(0)
      expect(answers.some(({ code }) => code === undefined)).toBe(true)
    }
  }, 60_000)

  it('join by an invitation as a new account, once, and sign in without a mail more', async () => {
    const email = address()
    const { token } = await invite(email, 'DEVELOPER')
    expect((await run('acceptInvitation', { token })).code).toBe('BAD_USER_INPUT')
    expect((await run('acceptInvitation', { token, name: 'Ada', password: 'password1234' })).code).toBe(
      'BAD_USER_INPUT',
    )
    const answer = await run('acceptInvitation', { token, name: 'Ada', password })
    expect(answer.data['acceptInvitation']).toMatchObject({ organizationSlug: org.slug, role: 'DEVELOPER' })
    expect((await run('acceptInvitation', { token, name: 'Ada', password })).code).toBe('INVALID_CREDENTIALS')
    expect((await signIn(email)).data['signIn'].organization.id).toBeTruthy()
  })

  it('join once though the invitation is accepted twice at the same moment', async () => {
    const { token } = await invite(address())
    const answers = await Promise.all([1, 2, 3].map(() => run('acceptInvitation', { token, name: 'Ada', password })))
    expect(answers.filter(({ errors }) => errors.length === 0)).toHaveLength(1)
  })

  it('join as the account they have, by its session or its password and no other', async () => {
    const person = other.developer
    const { token } = await invite(person.email, 'VIEWER')
    expect((await run('acceptInvitation', { token })).code).toBe('INVALID_CREDENTIALS')
    expect((await run('acceptInvitation', { token, name: 'X', password: 'quite another one 77' })).code).toBe('INVALID_CREDENTIALS') // prettier-ignore
    expect((await run('acceptInvitation', { token }, other.viewer)).code).toBe('INVALID_CREDENTIALS')
    expect((await run('acceptInvitation', { token }, person)).errors).toEqual([])
    const acting = await signIn(person.email, org.slug)
    expect((await viewer({ authorization: `Bearer ${acting.data['signIn'].accessToken}` })).data['viewer'].role).toBe('VIEWER') // prettier-ignore
  })

  it('do not join by a session that has ended', async () => {
    const person = await addMember(one, other.id, 'VIEWER')
    const { token } = await invite(person.email, 'VIEWER')
    await one.graphql('mutation { signOut { sessionId } }', {}, person)
    expect((await run('acceptInvitation', { token }, person, two)).code).toBe('INVALID_CREDENTIALS')
  })

  it('do not join by an invitation that was revoked, has expired, or whose sender administers no more', async () => {
    const revoked = await invite(address())
    expect((await run('revokeInvitation', { id: revoked.id }, other.admin)).code).toBe('NOT_FOUND')
    expect((await run('revokeInvitation', { id: revoked.id }, org.admin)).errors).toEqual([])
    const second = await fresh(one, await addMember(one, org.id, 'ORG_ADMIN'))
    const orphaned = await invite(address(), 'ORG_ADMIN', second)
    await run('changeRole', { ...(await membershipOf(second)), role: 'VIEWER' }, org.admin)
    const late = await invite(address())
    for (const { token } of [revoked, orphaned])
      expect((await run('acceptInvitation', { token, name: 'Ada', password })).code).toBe('INVALID_CREDENTIALS')
    now = new Date(Date.now() + 8 * 86_400_000)
    const expired = await run('acceptInvitation', { token: late.token, name: 'Ada', password })
    now = new Date()
    expect(expired.code).toBe('INVALID_CREDENTIALS')
  })

  it('are not invited twice at once, nor bombed with mail', async () => {
    const email = address()
    const { id } = await invite(email)
    expect((await run('inviteMember', { email, role: 'VIEWER' }, org.admin)).code).toBe('CONFLICT')
    expect((await run('inviteMember', { email: org.viewer.email, role: 'VIEWER' }, org.admin)).code).toBe('CONFLICT')
    let last = id
    for (let i = 0; i < 2; i += 1) {
      await run('revokeInvitation', { id: last }, org.admin)
      last = (await run('inviteMember', { email, role: 'VIEWER' }, org.admin)).data['inviteMember'].id as string
    }
    await run('revokeInvitation', { id: last }, org.admin)
    expect((await run('inviteMember', { email, role: 'VIEWER' }, org.admin)).code).toBe('RATE_LIMITED')
  })

  it('see invitations as administrators alone, and never their tokens', async () => {
    const email = address()
    await invite(email)
    const text = '{ organization { invitations(first: 5) { edges { node { id email role expiresAt } } } } }'
    const mine = await one.graphql(text, {}, org.admin)
    expect(mine.data['organization'].invitations.edges[0].node.email).toBe(email)
    expect((await one.graphql(text, {}, org.developer)).code).toBe('FORBIDDEN')
    const theirs = await one.graphql(text, {}, other.admin)
    expect(theirs.data['organization'].invitations.edges).toEqual([])
  })
})
