import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { addMember, createKey, password, seedOrganization, type Organization, type Person } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'
import { MfaClient, MovableClock } from './mfaHarness.ts'

let world: World
let clock: MovableClock
let client: MfaClient
let org: Organization
let person: Person

beforeAll(async () => {
  clock = new MovableClock()
  world = await createWorld({ PUBLIC_URL: 'http://platform.test' }, { clock: clock.now })
  client = new MfaClient(world, clock)
  org = await seedOrganization(world)
})
afterAll(() => world.close())
beforeEach(async () => {
  person = await addMember(world, org.id, 'ORG_ADMIN')
})

describe('an authenticator app', () => {
  it('is enrolled with the password again, shown as address and QR code, and counts after its first code', async () => {
    const pending = await client.must('enrolTotp', { password, label: 'Phone' }, 'id secret uri qrCode', person)
    expect(pending.uri).toContain(`secret=${pending.secret}`)
    expect(pending.qrCode).toMatch(/^<svg/)
    expect((await client.signIn(person.email)).data.signIn.challenge).toBeNull()
    const wrong = await client.run('confirmTotp', { id: pending.id, code: '000000' }, 'accessToken', person)
    expect(wrong.code).toBe('INVALID_CREDENTIALS')
    const code = client.code(pending.secret)
    const done = await client.must(
      'confirmTotp',
      { id: pending.id, code },
      'factor { label kind } recoveryCodes',
      person,
    )
    expect(done.factor).toEqual({ label: 'Phone', kind: 'TOTP' })
    expect(new Set(done.recoveryCodes).size).toBe(10)
  })

  it('is not enrolled by a token alone, or with a wrong password', async () => {
    expect((await client.run('enrolTotp', {}, 'id', person)).code).toBe('BAD_USER_INPUT')
    expect((await client.run('enrolTotp', { password: 'wrong' }, 'id', person)).code).toBe('INVALID_CREDENTIALS')
  })

  it('cannot be confirmed by somebody else', async () => {
    const { id, secret } = await client.must('enrolTotp', { password }, 'id secret', person)
    const other = await addMember(world, org.id, 'DEVELOPER')
    expect((await client.run('confirmTotp', { id, code: client.code(secret) }, 'accessToken', other)).code).toBe(
      'NOT_FOUND',
    )
  })

  it('keeps its secret sealed: neither the row nor the log shows it', async () => {
    const { secret, recoveryCodes } = await client.enrolTotp(person)
    const { system } = await import('../../src/kernel/actor.ts')
    const rows = await world.platform.database.read(system(), async (tx) => [
      await tx.secondFactor.findMany({ where: { userId: person.userId }, omit: { lastStep: true, counter: true } }),
      await tx.recoveryCode.findMany({ where: { userId: person.userId } }),
    ])
    for (const text of [JSON.stringify(rows), world.logged.join('\n')])
      for (const hidden of [secret, ...recoveryCodes, ...recoveryCodes.map((code) => code.replaceAll('-', ''))])
        expect(text).not.toContain(hidden)
  })
})

describe('a sign-in without a second factor', () => {
  it('is one step for whoever enrolled none, where the organisation does not require one', async () => {
    const { data } = await client.signIn(person.email)
    expect(data.signIn.challenge).toBeNull()
    const as = { authorization: `Bearer ${data.signIn.accessToken}` }
    expect((await world.graphql('{ viewer { name } services { edges { node { id } } } }', {}, as)).errors).toEqual([])
  })
})

describe('a sign-in with a second factor', () => {
  it('answers the password with a challenge and no token, and the code with a session that is fresh', async () => {
    const { secret } = await client.enrolTotp(person)
    const first = await client.signIn(person.email)
    expect(first.data.signIn).toMatchObject({ accessToken: null, user: null })
    expect(first.data.signIn.challenge.methods).toEqual(['TOTP', 'RECOVERY_CODE'])
    const done = await client.complete(first.data.signIn.challenge.id, {
      method: 'TOTP',
      code: client.nextCode(secret),
    })
    expect(done.errors).toEqual([])
    const authorization = `Bearer ${done.data.completeSignIn.accessToken}`
    expect((await client.administer({ authorization })).errors).toEqual([])
  })

  it('refuses a code that was used, even in the next challenge, and takes the next one', async () => {
    const { secret } = await client.enrolTotp(person)
    const code = client.nextCode(secret)
    const [a, b] = [await client.challenge(person.email), await client.challenge(person.email)]
    expect((await client.complete(a.id, { method: 'TOTP', code })).data.completeSignIn.accessToken).toBeTruthy()
    expect((await client.complete(b.id, { method: 'TOTP', code })).code).toBe('INVALID_CREDENTIALS')
    expect((await client.complete(b.id, { method: 'TOTP', code: client.nextCode(secret) })).errors).toEqual([])
  })

  it('takes codes of the steps beside this one and of none further off', async () => {
    const { secret } = await client.enrolTotp(person)
    clock.forward(300)
    const early = client.code(secret)
    clock.forward(61)
    const { id } = await client.challenge(person.email)
    expect((await client.complete(id, { method: 'TOTP', code: early })).code).toBe('INVALID_CREDENTIALS')
    const last = client.code(secret)
    clock.forward(30)
    expect((await client.complete(id, { method: 'TOTP', code: last })).errors).toEqual([])
  })

  it('is over after five wrong tries, though the sixth code be right', async () => {
    const { secret } = await client.enrolTotp(person)
    const { id } = await client.challenge(person.email)
    for (let i = 0; i < 5; i += 1)
      expect((await client.complete(id, { method: 'TOTP', code: `00000${i}` })).code).toBe('INVALID_CREDENTIALS')
    const sixth = await client.complete(id, { method: 'TOTP', code: client.nextCode(secret) })
    expect(sixth.code).toBe('INVALID_CREDENTIALS')
    expect(sixth.errors[0]?.message).toMatch(/over/)
  })

  it('bounds guessing over any number of challenges, while a session that stands can still step up', async () => {
    const { secret, person: standing } = await client.enrolTotp(person)
    const challenges = [await client.challenge(person.email), await client.challenge(person.email)]
    for (const { id } of challenges)
      for (let i = 0; i < 5; i += 1) await client.complete(id, { method: 'RECOVERY_CODE', code: `WRONG-00${i}` })
    const { id } = await client.challenge(person.email)
    const eleventh = await client.complete(id, { method: 'TOTP', code: client.nextCode(secret) })
    expect(eleventh.code).toBe('RATE_LIMITED')
    expect(Number(eleventh.headers.get('retry-after'))).toBeGreaterThan(0)
    expect((await client.stepUp(standing, { method: 'TOTP', code: client.nextCode(secret) })).errors).toEqual([])
    clock.forward(901)
    const { id: later } = await client.challenge(person.email)
    expect((await client.complete(later, { method: 'TOTP', code: client.nextCode(secret) })).errors).toEqual([])
  })

  it('counts aliased guesses one by one', async () => {
    await client.enrolTotp(person)
    const { id } = await client.challenge(person.email)
    const guess = (i: number) =>
      `g${i}: completeSignIn(input: { challengeId: "${id}", method: TOTP, code: "00000${i}" }) { accessToken }`
    const { errors } = await world.graphql(`mutation { ${Array.from({ length: 8 }, (_, i) => guess(i)).join(' ')} }`)
    expect(errors.filter(({ message }) => /not accepted/.test(message))).toHaveLength(5)
    expect(errors.filter(({ message }) => /over/.test(message))).toHaveLength(3)
  })

  it('ends with its five minutes', async () => {
    const { secret } = await client.enrolTotp(person)
    const { id } = await client.challenge(person.email)
    clock.forward(301)
    expect((await client.complete(id, { method: 'TOTP', code: client.code(secret) })).code).toBe('INVALID_CREDENTIALS')
  })

  it('is bound to the challenge of its own password step: one that a stranger opened opens nothing (session fixation)', async () => {
    const mallory = await addMember(world, org.id, 'DEVELOPER')
    const theirs = await client.enrolTotp(mallory)
    const mine = await client.enrolTotp(person)
    const planted = await client.challenge(mallory.email)
    const answer = await client.complete(planted.id, { method: 'TOTP', code: client.nextCode(mine.secret) })
    expect(answer.code).toBe('INVALID_CREDENTIALS')
    const done = await client.complete(planted.id, { method: 'TOTP', code: client.nextCode(theirs.secret) })
    const { data } = await world.graphql<any>('{ viewer { email } }', {}, { authorization: `Bearer ${done.data.completeSignIn.accessToken}` }) // prettier-ignore
    expect(data.viewer.email).toBe(mallory.email)
  })

  it('is not finished by another person’s factor, nor by a made-up challenge', async () => {
    await client.enrolTotp(person)
    const mallory = await addMember(world, org.id, 'DEVELOPER')
    const theirs = await client.enrolTotp(mallory)
    const { id } = await client.challenge(person.email)
    const code = client.nextCode(theirs.secret)
    expect((await client.complete(id, { method: 'TOTP', code })).code).toBe('INVALID_CREDENTIALS')
    const recovery = { method: 'RECOVERY_CODE', code: theirs.recoveryCodes[0] }
    expect((await client.complete(id, recovery)).code).toBe('INVALID_CREDENTIALS')
    expect((await client.complete('made-up', { method: 'TOTP', code })).code).toBe('INVALID_CREDENTIALS')
  })

  it('is not finished for a member who was deactivated meanwhile', async () => {
    const { secret } = await client.enrolTotp(person)
    const { id } = await client.challenge(person.email)
    const { system } = await import('../../src/kernel/actor.ts')
    await world.platform.database.transact(system(), (tx) =>
      tx.membership.updateMany({ where: { userId: person.userId }, data: { deactivatedAt: new Date() } }),
    )
    expect((await client.complete(id, { method: 'TOTP', code: client.nextCode(secret) })).code).toBe(
      'INVALID_CREDENTIALS',
    )
  })
})

describe('recovery codes', () => {
  it('are good once each, however they are typed', async () => {
    const { recoveryCodes } = await client.enrolTotp(person)
    const proof = { method: 'RECOVERY_CODE', code: recoveryCodes[3]?.toLowerCase().replaceAll('-', ' ') }
    const first = await client.challenge(person.email)
    expect((await client.complete(first.id, proof)).errors).toEqual([])
    const second = await client.challenge(person.email)
    expect((await client.complete(second.id, proof)).code).toBe('INVALID_CREDENTIALS')
  })

  it('are void once new ones are made, which needs a fresh second factor', async () => {
    const { recoveryCodes, person: fresh } = await client.enrolTotp(person)
    const { codes } = await client.must('regenerateRecoveryCodes', null, 'codes', fresh)
    const { id } = await client.challenge(person.email)
    expect((await client.complete(id, { method: 'RECOVERY_CODE', code: recoveryCodes[0] })).code).toBe(
      'INVALID_CREDENTIALS',
    )
    expect((await client.complete(id, { method: 'RECOVERY_CODE', code: codes[0] })).errors).toEqual([])
    clock.forward(601)
    const later = await client.challenge(person.email)
    const { data } = await client.complete(later.id, { method: 'RECOVERY_CODE', code: codes[1] })
    clock.forward(601)
    const as = { authorization: `Bearer ${data.completeSignIn.accessToken}` }
    expect((await client.run('regenerateRecoveryCodes', null, 'codes', as)).code).toBe('MFA_REQUIRED')
  })
})

describe('races', () => {
  const opened = (answers: { data: any }[]) => answers.filter(({ data }) => data?.completeSignIn?.accessToken)

  it('let one challenge be finished once', async () => {
    const { recoveryCodes } = await client.enrolTotp(person)
    const { id } = await client.challenge(person.email)
    const tries = recoveryCodes.slice(0, 4).map((code) => client.complete(id, { method: 'RECOVERY_CODE', code }))
    expect(opened(await Promise.all(tries))).toHaveLength(1)
  })

  it('let a recovery code and a TOTP step be used once over several challenges', async () => {
    const { secret, recoveryCodes } = await client.enrolTotp(person)
    const ids = await Promise.all(Array.from({ length: 4 }, () => client.challenge(person.email)))
    const code = client.nextCode(secret)
    const totp = await Promise.all(ids.map(({ id }) => client.complete(id, { method: 'TOTP', code })))
    expect(opened(totp)).toHaveLength(1)
    const more = await Promise.all(Array.from({ length: 4 }, () => client.challenge(person.email)))
    const proof = { method: 'RECOVERY_CODE', code: recoveryCodes[0] }
    expect(opened(await Promise.all(more.map(({ id }) => client.complete(id, proof))))).toHaveLength(1)
  })
})

describe('API keys', () => {
  it('can neither step up nor touch second factors, and never pass an administrative rule', async () => {
    const { secret, person: fresh } = await client.enrolTotp(person)
    const key = await createKey(world, fresh, [
      'mcp:admin',
      'org:write',
      'org:admin',
      'user:write',
      'user:token',
      'mcp:write',
    ])
    const document = 'mutation ($input: StepUpInput!) { stepUp(input: $input) { accessToken } }'
    const enrol = 'mutation ($input: EnrolTotpInput!) { enrolTotp(input: $input) { id } }'
    const rename = 'mutation ($input: UpdateOrganizationInput!) { updateOrganization(input: $input) { id } }'
    const send = async (query: string, input: object) => {
      const { data } = await world.graphql<any>(
        'mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { sha256 } }',
        { input: { document: query } },
        fresh,
      )
      return world.post<any>({ documentId: data.registerPersistedOperation.sha256, variables: { input } }, key)
    }
    for (const answer of [
      await send(document, { method: 'TOTP', code: client.nextCode(secret) }),
      await send(enrol, { password }),
      await send(rename, { name: 'By a key' }),
    ]) {
      expect(answer.code).toBe('FORBIDDEN')
      expect(answer.status).toBe(403)
    }
  })
})
