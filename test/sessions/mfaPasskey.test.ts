import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import { addMember, password, seedOrganization, type Organization, type Person } from '../harness/seed.ts'
import { createTwin, createWorld, type World } from '../harness/world.ts'
import { MfaClient, MovableClock } from './mfaHarness.ts'
import { SoftAuthenticator } from './softAuthenticator.ts'

const origin = 'http://platform.test'
let world: World
let clock: MovableClock
let client: MfaClient
let org: Organization
let person: Person
let passkey: SoftAuthenticator

beforeAll(async () => {
  clock = new MovableClock()
  world = await createWorld({ PUBLIC_URL: origin }, { clock: clock.now })
  client = new MfaClient(world, clock)
  org = await seedOrganization(world)
})
afterAll(() => world.close())
beforeEach(async () => {
  const enrolled = await client.enrolPasskey(await addMember(world, org.id, 'ORG_ADMIN'))
  person = enrolled.person
  passkey = enrolled.passkey
})

const optionsFor = async (challengeId?: string) =>
  (await client.must('startPasskeySignIn', challengeId ? { challengeId } : {}, 'options')).options
const stepUpOptions = async (as: Person) => (await client.must('startPasskeyStepUp', null, 'options', as)).options
const bySecondStep = (challengeId: string, assertion: object) =>
  client.complete(challengeId, { method: 'PASSKEY', assertion })
const withoutPassword = (assertion: object) => client.run('signInWithPasskey', { assertion }, 'accessToken user { id }')
const refused = 'INVALID_CREDENTIALS'

describe('a passkey as the second factor', () => {
  it('finishes a sign-in, and its session is fresh', async () => {
    const { id, methods } = await client.challenge(person.email)
    expect(methods).toEqual(['PASSKEY', 'RECOVERY_CODE'])
    const options = await optionsFor(id)
    expect(options.allowCredentials).toEqual([expect.objectContaining({ id: passkey.id })])
    const { data, errors } = await bySecondStep(id, passkey.assert(options))
    expect(errors).toEqual([])
    expect((await client.administer({ authorization: `Bearer ${data.completeSignIn.accessToken}` })).errors).toEqual([])
  })

  it('steps up a session that stands', async () => {
    clock.forward(601)
    expect((await client.administer(person)).code).toBe('MFA_REQUIRED')
    const { data } = await client.stepUp(person, {
      method: 'PASSKEY',
      assertion: passkey.assert(await stepUpOptions(person)),
    })
    expect((await client.administer({ authorization: `Bearer ${data.stepUp.accessToken}` })).errors).toEqual([])
  })

  it.each([
    ['another origin', { origin: 'http://platform.test.evil.example' }],
    ['another port of the same host', { origin: 'http://platform.test:8080' }],
    ['another relying party', { rpId: 'evil.example' }],
    ['a challenge that was never given', { challenge: 'bm90IG91cnM' }],
    ['a frame of another site', { crossOrigin: true }],
    ['somebody else’s user handle', { userHandle: 'AAAAAAAAAAAAAAAAAAAAAA' }],
  ])('refuses an assertion for %s', async (_what, faults) => {
    const { id } = await client.challenge(person.email)
    const answer = await bySecondStep(id, passkey.assert(await optionsFor(id), faults))
    expect(answer.code).toBe(refused)
    expect(answer.data.completeSignIn).toBeNull()
  })

  it('refuses an assertion whose signature, or whose signed data, was changed', async () => {
    const { id } = await client.challenge(person.email)
    const good = passkey.assert(await optionsFor(id))
    const data = Buffer.from(good.response.authenticatorData, 'base64url')
    data[data.length - 1] = (data.at(-1) ?? 0) + 1
    const changed = { ...good, response: { ...good.response, authenticatorData: data.toString('base64url') } }
    expect((await bySecondStep(id, changed)).code).toBe(refused)
  })

  it('refuses an assertion that was used, also where the first use failed', async () => {
    const first = await client.challenge(person.email)
    const options = await optionsFor(first.id)
    const assertion = passkey.assert(options)
    expect((await bySecondStep(first.id, assertion)).errors).toEqual([])
    const second = await client.challenge(person.email)
    expect((await bySecondStep(second.id, assertion)).code).toBe(refused)
    const more = await optionsFor(second.id)
    expect((await bySecondStep(second.id, passkey.assert(more, { origin: 'http://evil.example' }))).code).toBe(refused)
    expect((await bySecondStep(second.id, passkey.assert(more))).code).toBe(refused)
  })

  it('refuses a counter that does not grow, and says so in the trail', async () => {
    const { id } = await client.challenge(person.email)
    expect((await bySecondStep(id, passkey.assert(await optionsFor(id), { counter: 7 }))).errors).toEqual([])
    for (const counter of [7, 3, 0]) {
      const next = await client.challenge(person.email)
      expect((await bySecondStep(next.id, passkey.assert(await optionsFor(next.id), { counter }))).code).toBe(refused)
    }
    const events = await world.platform.database.read(system(), (tx) =>
      tx.auditEvent.findMany({ where: { userId: person.userId, action: 'secondFactor.counterRegressed' } }),
    )
    expect(events).toHaveLength(3)
    expect(events[0]?.outcome).toBe('failed')
  })

  it('keeps the challenges of sign-ins, sessions and people apart', async () => {
    const mine = await client.challenge(person.email)
    const other = await client.challenge(person.email)
    expect((await bySecondStep(other.id, passkey.assert(await optionsFor(mine.id)))).code).toBe(refused)
    expect((await bySecondStep(other.id, passkey.assert(await stepUpOptions(person)))).code).toBe(refused)
    expect((await bySecondStep(other.id, passkey.assert(await optionsFor()))).code).toBe(refused)
    const mallory = await client.enrolPasskey(await addMember(world, org.id, 'DEVELOPER'))
    expect((await bySecondStep(other.id, mallory.passkey.assert(await optionsFor(other.id)))).code).toBe(refused)
  })

  it('refuses a challenge that has run out', async () => {
    const options = await stepUpOptions(person)
    clock.forward(301)
    const assertion = passkey.assert(options)
    expect((await client.stepUp(person, { method: 'PASSKEY', assertion })).code).toBe(refused)
  })

  it('lets one of two racing uses of an assertion pass', async () => {
    const assertion = passkey.assert(await stepUpOptions(person))
    const both = await Promise.all([1, 2].map(() => client.stepUp(person, { method: 'PASSKEY', assertion })))
    expect(both.filter(({ errors }) => errors.length === 0)).toHaveLength(1)
  })
})

describe('a passkey in place of the password', () => {
  it('opens a session that is fresh, and names nobody beforehand', async () => {
    const options = await optionsFor()
    expect(options).toMatchObject({ userVerification: 'required' })
    expect(options.allowCredentials).toBeUndefined()
    const { data } = await withoutPassword(passkey.assert(options))
    const as = { authorization: `Bearer ${data.signInWithPasskey.accessToken}` }
    expect((await client.administer(as)).errors).toEqual([])
  })

  it.each([
    ['without finger, face or PIN', { userVerified: false }],
    ['without a user handle', { userHandle: null }],
    ['from another origin', { origin: 'https://evil.example' }],
    ['with another challenge', { challenge: 'bm90IG91cnM' }],
  ])('is refused %s', async (_what, faults) => {
    expect((await withoutPassword(passkey.assert(await optionsFor(), faults))).code).toBe(refused)
  })

  it('acts in the organisation that was asked for, where its owner is an active member, and in no other', async () => {
    const other = await seedOrganization(world)
    const enter = async (organization: string) =>
      client.run('signInWithPasskey', { assertion: passkey.assert(await optionsFor()), organization }, 'accessToken')
    const member = { orgId: other.id, userId: person.userId }
    const change = (deactivatedAt: Date | null) =>
      world.platform.database.transact(system(), (tx) =>
        tx.membership.updateMany({ where: member, data: { deactivatedAt } }),
      )
    expect((await enter(other.slug)).code).toBe(refused)
    await world.platform.database.transact(system(), (tx) =>
      tx.membership.create({ data: { ...member, role: 'VIEWER' }, select: { id: true } }),
    )
    const { data } = await enter(other.slug)
    const as = { authorization: `Bearer ${data.signInWithPasskey.accessToken}` }
    const there = await world.graphql<any>('{ viewer { organization { id slug } } }', {}, as)
    expect(there.data.viewer.organization.slug).toBe(other.slug)
    // An administrator at home, a viewer here; and of home this session sees nothing.
    expect((await client.administer(as)).code).toBe('FORBIDDEN')
    const home = await world.graphql<any>('{ viewer { organization { id } } }', {}, person)
    const peek = await world.graphql<any>('query ($id: ID!) { node(id: $id) { id } }', { id: home.data.viewer.organization.id }, as) // prettier-ignore
    expect([peek.code, peek.data?.node ?? null]).toEqual(['NOT_FOUND', null])
    await change(new Date())
    expect((await world.graphql('{ viewer { name } }', {}, as)).code).toBe('UNAUTHENTICATED')
    expect((await enter(other.slug)).code).toBe(refused)
    expect((await enter(org.slug)).errors).toEqual([])
    expect((await enter('no-such-organisation')).code).toBe(refused)
  })

  it('is refused a second time, and after the passkey was removed', async () => {
    const assertion = passkey.assert(await optionsFor())
    expect((await withoutPassword(assertion)).errors).toEqual([])
    expect((await withoutPassword(assertion)).code).toBe(refused)
    const { data } = await world.graphql<any>('{ secondFactors { id kind } }', {}, person)
    await client.must('removeSecondFactor', { id: data.secondFactors[0].id }, 'id', person)
    expect((await withoutPassword(passkey.assert(await optionsFor()))).code).toBe(refused)
  })
})

describe('the registration of a passkey', () => {
  const register = async (faults: object) => {
    const { options } = await client.must('startPasskeyRegistration', { password }, 'options', person)
    const attestation = new SoftAuthenticator(origin).register(options, faults)
    return client.run('registerPasskey', { attestation }, 'accessToken', person)
  }

  it.each([
    ['another origin', { origin: 'http://evil.example' }],
    ['a challenge that was never given', { challenge: 'bm90IG91cnM' }],
    ['another relying party', { rpId: 'evil.example' }],
    ['a frame of another site', { crossOrigin: true }],
  ])('is refused for %s', async (_what, faults) => {
    expect((await register(faults)).code).toBe(refused)
  })

  it('is refused to a second person for the same credential', async () => {
    const mallory = await addMember(world, org.id, 'DEVELOPER')
    const { options } = await client.must('startPasskeyRegistration', { password }, 'options', mallory)
    const attestation = passkey.register(options)
    expect((await client.run('registerPasskey', { attestation }, 'accessToken', mallory)).code).toBe('CONFLICT')
  })

  it('cannot use the challenge of another person’s registration', async () => {
    const mallory = await addMember(world, org.id, 'DEVELOPER')
    const { options } = await client.must('startPasskeyRegistration', { password }, 'options', mallory)
    const attestation = new SoftAuthenticator(origin).register(options)
    expect((await client.run('registerPasskey', { attestation }, 'accessToken', person)).code).toBe(refused)
  })

  it('says where an address cannot have passkeys', async () => {
    const other = await createTwin(world, { PUBLIC_URL: 'http://127.0.0.1:4000' })
    try {
      const { code } = await new MfaClient(other, clock).run('startPasskeySignIn', {}, 'options')
      expect(code).toBe('SERVICE_UNAVAILABLE')
    } finally {
      await other.close()
    }
  })
})
