import type { GraphQLObjectType } from 'graphql'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ruleOf } from '../../src/graphql/rules.ts'
import { member, system } from '../../src/kernel/actor.ts'
import { freshMfaBit, scopes } from '../../src/kernel/permissions.ts'
import { buildSchema } from '../../src/schema.ts'
import { openMailbox, type Mailbox } from '../harness/mailbox.ts'
import {
  addMember,
  createKey,
  fresh,
  password,
  seedOrganization,
  type Organization,
  type Person,
} from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'
import { MfaClient, MovableClock } from './mfaHarness.ts'

let world: World
let mailbox: Mailbox
let clock: MovableClock
let client: MfaClient
let org: Organization
let person: Person

beforeAll(async () => {
  clock = new MovableClock()
  mailbox = await openMailbox()
  const settings = {
    PUBLIC_URL: 'http://platform.test',
    SMTP_URL: mailbox.url,
    EMAIL_VERIFICATION: 'off',
    ACCESS_TOKEN_TTL_SECONDS: '86400',
  }
  world = await createWorld(settings, { clock: clock.now })
  client = new MfaClient(world, clock)
  org = await seedOrganization(world)
})
afterAll(async () => {
  await world.close()
  await mailbox.close()
})
beforeEach(async () => {
  person = await addMember(world, org.id, 'ORG_ADMIN')
})

describe('administrative actions', () => {
  it('all ask for a fresh second factor: every mutation of an administrator’s scope, and the deletion of a service', () => {
    const mutations = (buildSchema().getMutationType() as GraphQLObjectType).getFields()
    const rules = Object.entries(mutations).map(([name, field]) => ({ name, rule: ruleOf(field) }))
    const administrative = ['mcp:admin', 'org:write', 'org:admin']
    const open = rules.filter(
      ({ name, rule }) =>
        rule &&
        typeof rule !== 'symbol' &&
        (rule.scopes.some((scope) => administrative.includes(scope)) || name === 'deleteService') &&
        !rule.stepUp,
    )
    expect(open.map(({ name }) => name)).toEqual([])
  })

  it('lead an admin without any second factor to enrol one first, after which they pass', async () => {
    const before = await client.administer(person)
    expect(before.code).toBe('MFA_REQUIRED')
    expect(before.status).toBe(403)
    expect(before.errors[0]?.extensions).toMatchObject({ methods: [], enrol: true })
    const { person: enrolled } = await client.enrolTotp(person)
    expect((await client.administer(enrolled)).errors).toEqual([])
  })

  it('name the methods that would do, and open for ten minutes by stepUp, no longer', async () => {
    const { secret, person: enrolled } = await client.enrolTotp(person)
    clock.forward(660)
    const stale = await client.administer(enrolled)
    expect(stale.code).toBe('MFA_REQUIRED')
    expect(stale.errors[0]?.extensions['methods']).toEqual(['TOTP', 'RECOVERY_CODE'])
    expect(stale.errors[0]?.extensions).not.toHaveProperty('enrol')
    const { data } = await client.stepUp(enrolled, { method: 'TOTP', code: client.code(secret) })
    const stepped = { authorization: `Bearer ${data.stepUp.accessToken}` }
    clock.forward(590)
    expect((await client.administer(stepped)).errors).toEqual([])
    clock.forward(20)
    expect((await client.administer(stepped)).code).toBe('MFA_REQUIRED')
  })

  it('ask the members of lower roles for nothing: they are refused as before', async () => {
    const answer = await client.administer(org.developer)
    expect(answer.code).toBe('FORBIDDEN')
    expect(answer.errors[0]?.extensions).not.toHaveProperty('methods')
  })

  it('believe a token’s second factor only as far as the session’s row confirms it', async () => {
    const { person: enrolled } = await client.enrolTotp(person)
    await world.platform.database.transact(system(), (tx) =>
      tx.session.updateMany({ where: { userId: person.userId }, data: { mfaAt: null } }),
    )
    const answer = await client.administer(enrolled)
    expect([answer.code, answer.status]).toEqual(['UNAUTHENTICATED', 401])
  })

  it('are held by the database alone, once rule and operation are left out', async () => {
    const stale = await sessionActor(org.adminWithoutMfa, null)
    const row = world.platform.database.transact(stale, (tx) =>
      tx.organization.updateMany({ where: { id: org.id }, data: { name: 'No second factor' } }),
    )
    expect(await row).toEqual({ count: 0 })
    const forged = await sessionActor(org.adminWithoutMfa, clock.now())
    expect(forged.permissions & freshMfaBit).toBe(freshMfaBit)
    const claimed = world.platform.database.transact(forged, (tx) =>
      tx.organization.updateMany({ where: { id: org.id }, data: { name: 'Forged' } }),
    )
    await expect(claimed).rejects.toMatchObject({ code: 'UNAUTHENTICATED' })
  })

  async function sessionActor(of: Person, mfaAt: Date | null) {
    const { sid } = JSON.parse(Buffer.from(of.authorization.split('.')[1] ?? '', 'base64url').toString()) as {
      sid: string
    }
    const { userId, orgId, role } = of
    const origin = { ip: null, userAgent: null, requestId: 'test' }
    return member({ kind: 'user', userId, orgId, role, credentialId: sid, mfaAt, origin, given: scopes }, clock.now())
  }
})

describe('stepping up', () => {
  it('is bounded to five wrong tries, and a right one before that ends the count', async () => {
    const { secret, person: enrolled } = await client.enrolTotp(person)
    const wrong = () => client.stepUp(enrolled, { method: 'TOTP', code: '000000' })
    for (let i = 0; i < 4; i += 1) expect((await wrong()).code).toBe('INVALID_CREDENTIALS')
    expect((await client.stepUp(enrolled, { method: 'TOTP', code: client.nextCode(secret) })).errors).toEqual([])
    for (let i = 0; i < 5; i += 1) expect((await wrong()).code).toBe('INVALID_CREDENTIALS')
    const sixth = await client.stepUp(enrolled, { method: 'TOTP', code: client.nextCode(secret) })
    expect(sixth.code).toBe('RATE_LIMITED')
  })

  it('refuses a code that was used, and another person’s', async () => {
    const { secret, person: enrolled } = await client.enrolTotp(person)
    const code = client.nextCode(secret)
    expect((await client.stepUp(enrolled, { method: 'TOTP', code })).errors).toEqual([])
    expect((await client.stepUp(enrolled, { method: 'TOTP', code })).code).toBe('INVALID_CREDENTIALS')
    const other = await addMember(world, org.id, 'ORG_ADMIN')
    await client.enrolTotp(other)
    expect((await client.stepUp(other, { method: 'TOTP', code: client.nextCode(secret) })).code).toBe(
      'INVALID_CREDENTIALS',
    )
  })

  it('says which part of the proof is missing without counting a try', async () => {
    for (let i = 0; i < 7; i += 1) {
      const answer = await client.stepUp(person, { method: 'PASSKEY' })
      expect(answer.code).toBe('BAD_USER_INPUT')
    }
  })

  it('is over with its session', async () => {
    const { secret, person: enrolled } = await client.enrolTotp(person)
    await client.must('signOut', null, 'sessionId', enrolled)
    const answer = await client.stepUp(enrolled, { method: 'TOTP', code: client.nextCode(secret) })
    expect(answer.code).toBe('UNAUTHENTICATED')
  })
})

describe('codes by e-mail', () => {
  const codeIn = ({ text }: { text: string }) => /\b\d{8}\b/.exec(text)?.[0] ?? ''
  const enrolEmail = async () => {
    await client.must('enrolEmailCodes', { password }, 'expiresAt', person)
    const code = codeIn(await mailbox.to(person.email))
    const { accessToken } = await client.must('confirmEmailCodes', { code }, 'accessToken', person)
    clock.forward(901)
    return { ...person, authorization: `Bearer ${accessToken}` }
  }

  it('are enrolled by the first one, finish a sign-in once, and for that sign-in alone', async () => {
    await enrolEmail()
    const first = await client.challenge(person.email)
    expect(first.methods).toEqual(['EMAIL', 'RECOVERY_CODE'])
    const second = await client.challenge(person.email)
    await client.must('sendSignInCode', { challengeId: first.id }, 'expiresAt')
    const code = codeIn(await mailbox.to(person.email, 2))
    expect((await client.complete(second.id, { method: 'EMAIL', code })).code).toBe('INVALID_CREDENTIALS')
    expect((await client.complete(first.id, { method: 'EMAIL', code })).errors).toEqual([])
    expect((await client.complete(first.id, { method: 'EMAIL', code })).code).toBe('INVALID_CREDENTIALS')
  })

  it('step up, die after ten minutes, and are void once another one is sent', async () => {
    const enrolled = await fresh(world, await enrolEmail())
    await client.must('sendStepUpCode', null, 'expiresAt', enrolled)
    const first = codeIn(await mailbox.to(person.email, 2))
    await client.must('sendStepUpCode', null, 'expiresAt', enrolled)
    const second = codeIn(await mailbox.to(person.email, 3))
    if (first !== second)
      expect((await client.stepUp(enrolled, { method: 'EMAIL', code: first })).code).toBe('INVALID_CREDENTIALS')
    clock.forward(601)
    expect((await client.stepUp(enrolled, { method: 'EMAIL', code: second })).code).toBe('INVALID_CREDENTIALS')
    await client.must('sendStepUpCode', null, 'expiresAt', enrolled)
    const third = codeIn(await mailbox.to(person.email, 4))
    expect((await client.stepUp(enrolled, { method: 'EMAIL', code: third })).errors).toEqual([])
  })

  it('are sent three times in fifteen minutes, also to those who ask at once', async () => {
    const enrolled = await enrolEmail()
    const asked = await Promise.all(
      Array.from({ length: 6 }, () => client.run('sendStepUpCode', null, 'expiresAt', enrolled)),
    )
    expect(asked.filter(({ errors }) => errors.length === 0)).toHaveLength(3)
    const refused = asked.find(({ code }) => code === 'RATE_LIMITED')
    expect(Number(refused?.headers.get('retry-after'))).toBeGreaterThan(0)
  })

  it('are not sent to an account that did not enrol them', async () => {
    const { person: enrolled } = await client.enrolTotp(person)
    expect((await client.run('sendStepUpCode', null, 'expiresAt', enrolled)).code).toBe('CONFLICT')
    const { id } = await client.challenge(person.email)
    expect((await client.run('sendSignInCode', { challengeId: id }, 'expiresAt')).code).toBe('CONFLICT')
    expect((await client.run('sendSignInCode', { challengeId: 'made-up' }, 'expiresAt')).code).toBe(
      'INVALID_CREDENTIALS',
    )
  })
})

describe('changes of second factors', () => {
  it('need a fresh one where one exists: the password no longer does', async () => {
    const { id, person: enrolled } = await client.enrolTotp(person)
    clock.forward(601)
    for (const [field, input] of [
      ['enrolTotp', { password }],
      ['enrolEmailCodes', { password }],
      ['startPasskeyRegistration', { password }],
      ['removeSecondFactor', { id, password }],
    ] as const) {
      const answer = await client.run(field, input, '__typename', enrolled)
      expect([field, answer.code]).toEqual([field, 'MFA_REQUIRED'])
      expect(answer.errors[0]?.extensions['methods']).toEqual(['TOTP', 'RECOVERY_CODE'])
    }
  })

  it('are in the trail, refusals too, and without secrets', async () => {
    const { id, secret, recoveryCodes, person: enrolled } = await client.enrolTotp(person)
    await client.stepUp(enrolled, { method: 'TOTP', code: '000000' })
    await client.must('regenerateRecoveryCodes', null, 'codes', enrolled)
    await client.must('removeSecondFactor', { id }, 'id', enrolled)
    const events = await world.platform.database.read(system(), (tx) =>
      tx.auditEvent.findMany({ where: { userId: person.userId }, orderBy: { id: 'asc' }, omit: { sequence: true } }),
    )
    const actions = events.map(({ action, outcome }) => `${action} ${outcome}`)
    expect(actions).toEqual([
      'session.opened ok',
      'secondFactor.enrolmentBegun ok',
      'secondFactor.added ok',
      'secondFactor.refused failed',
      'recoveryCodes.regenerated ok',
      'secondFactor.removed ok',
    ])
    for (const hidden of [secret, ...recoveryCodes]) expect(JSON.stringify(events)).not.toContain(hidden)
  })

  it('leave other people’s factors alone', async () => {
    const { id } = await client.enrolTotp(person)
    const mallory = await client.enrolTotp(await addMember(world, org.id, 'ORG_ADMIN'))
    expect((await client.run('removeSecondFactor', { id }, 'id', mallory.person)).code).toBe('NOT_FOUND')
    const { data } = await world.graphql<any>('{ secondFactors { id } }', {}, mallory.person)
    expect(data.secondFactors).toEqual([{ id: mallory.id }])
  })
})

describe('an organisation that requires a second factor', () => {
  let strict: Organization
  let key: { authorization: string }
  beforeAll(async () => {
    strict = await seedOrganization(world)
    key = await createKey(world, strict.colleague, ['mcp:read'])
    const admin = await client.enrolTotp(strict.adminWithoutMfa)
    await client.must('updateOrganization', { requireMfa: true }, 'requireMfa', admin.person)
  })

  it('lets members who have none do nothing but enrol, from their next request on', async () => {
    const { developer } = strict
    const before = await world.graphql<any>(
      '{ viewer { name organization { name } } services { edges { node { id } } } }',
      {},
      developer,
    )
    expect(before.code).toBe('MFA_REQUIRED')
    expect(before.errors[0]?.extensions).toMatchObject({ methods: [], enrol: true })
    const { person: enrolled } = await client.enrolTotp(developer)
    const after = await world.graphql<any>('{ viewer { name organization { name } } }', {}, enrolled)
    expect(after.errors).toEqual([])
  })

  it('gives their new sessions what enrolling needs, and says so wherever more is asked', async () => {
    const { data } = await client.signIn(strict.viewer.email)
    const as = { authorization: `Bearer ${data.signIn.accessToken}` }
    const self = await world.graphql<any>('{ viewer { name scopes } secondFactors { id } }', {}, as)
    expect(self.errors).toEqual([])
    expect(self.data.viewer.scopes).toEqual(['user:read', 'user:write'])
    const more = await world.graphql<any>('{ services { edges { node { id } } } }', {}, as)
    expect(more.code).toBe('MFA_REQUIRED')
    expect(more.errors[0]?.extensions).toMatchObject({ enrol: true })
  })

  it('refuses their API keys at the MCP door as well', async () => {
    const { authorization } = key
    const answer = await world.fetch(`/mcp/${strict.slug}/nothing`, { method: 'POST', headers: { authorization } })
    expect(answer.status).toBe(403)
    expect(await answer.json()).toMatchObject({ errors: [{ extensions: { code: 'MFA_REQUIRED', enrol: true } }] })
  })

  it('keeps the last factor of a member', async () => {
    const { id, person: enrolled } = await client.enrolTotp(strict.colleague)
    expect((await client.run('removeSecondFactor', { id }, 'id', enrolled)).code).toBe('CONFLICT')
  })
})
