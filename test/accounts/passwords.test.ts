import bcrypt from 'bcrypt'
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import { Hasher } from '../../src/kernel/hashing.ts'
import { mailer } from '../../src/kernel/mail.ts'
import { Secret } from '../../src/kernel/secret.ts'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { openMailbox, tokenIn, type Mailbox } from '../harness/mailbox.ts'
import { addMember, createKey, password, seedOrganization, type Organization, type Person } from '../harness/seed.ts'
import { createTwin, createWorld, type World } from '../harness/world.ts'

const signInText = 'mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }'
const changeText = 'mutation ($input: ChangePasswordInput!) { changePassword(input: $input) { id } }'
const requestText = 'mutation ($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { accepted } }'
const resetText = 'mutation ($input: ResetPasswordInput!) { resetPassword(input: $input) { accepted } }'
const better = 'glacier mosaic thimble 77 orbit'

describe('the hash of a password', () => {
  const hasher = new Hasher(4)

  it('tells passphrases of 200 bytes apart that differ in the last byte', async () => {
    const long = 'ä'.repeat(99)
    const hash = await hasher.hash(new Secret(`${long}xa`), 'anybody')
    expect(await hasher.matches(new Secret(`${long}xa`), hash, 'anybody')).toBe(true)
    expect(await hasher.matches(new Secret(`${long}xb`), hash, 'anybody')).toBe(false)
  })

  it('reads past a NUL', async () => {
    const hash = await hasher.hash(new Secret('before\u0000after'), 'anybody')
    expect(await hasher.matches(new Secret('before\u0000other'), hash, 'anybody')).toBe(false)
  })

  it('is not that of a bare SHA-256, so a leaked list of those cannot be tried against it', async () => {
    const hash = await hasher.hash(new Secret('correct horse'), 'anybody')
    for (const encoding of ['base64', 'hex'] as const)
      expect(await bcrypt.compare(createHash('sha256').update('correct horse').digest(encoding), hash)).toBe(false)
  })
})

describe('a password', () => {
  let mailbox: Mailbox
  let database: TestDatabase
  let world: World
  let two: World
  let org: Organization
  let now = new Date()
  const settings = () => ({ SMTP_URL: mailbox.url, EMAIL_VERIFICATION: 'off' })
  beforeAll(async () => {
    mailbox = await openMailbox()
    database = await createDatabase()
    world = await createWorld(settings(), { database, clock: () => now })
    two = await createTwin(world, settings())
    org = await seedOrganization(world)
  })
  afterAll(async () => {
    await two.close()
    await world.close()
    await database.drop()
    await mailbox.close()
  })

  const signIn = (email: string, given: string, as = world) =>
    as.graphql(signInText, { input: { email, password: given } })
  const viewer = (as: Pick<Person, 'authorization'>, on = world) => on.graphql('{ viewer { id } }', {}, as)
  const bearer = ({ data }: { data: any }) => ({ authorization: `Bearer ${data.signIn.accessToken}` })
  const change = (as: Pick<Person, 'authorization'>, currentPassword: string, newPassword: string) =>
    world.graphql(changeText, { input: { currentPassword, newPassword } }, as)
  const request = (email: string) => world.graphql(requestText, { input: { email } })
  const reset = (token: string, given = better) => world.graphql(resetText, { input: { token, password: given } })

  it.each([
    ['a common one with digits', 'password1234'],
    ['a row of keys', 'qwertyuiop123456'],
    ['one character again and again', 'aaaaaaaaaaaaaaaaaa'],
    ['a pattern again and again', 'x9$kx9$kx9$kx9$kx9$k'],
    ['a known phrase', 'iloveyou123456'],
    ['one from the bundled list of leaked ones', 'qazwsxedcrfv'],
    ['one that is too short', 'x9$kQ!2'],
  ])('is refused when it is %s', async (_what, weak) => {
    const person = await addMember(world, org.id, 'VIEWER')
    const answer = await change(person, password, weak)
    expect(answer.code).toBe('BAD_USER_INPUT')
    expect(answer.errors[0]?.extensions['issues']).toMatchObject([{ path: ['newPassword'] }])
    expect(JSON.stringify(answer)).not.toContain(weak)
  })

  it('is refused when it is made of the owner’s own name and address', async () => {
    const person = await addMember(world, org.id, 'VIEWER')
    const [local = ''] = person.email.split('@')
    expect((await change(person, password, local)).code).toBe('BAD_USER_INPUT')
  })

  it('is judged with bounded work, however long and odd it is', async () => {
    const person = await addMember(world, org.id, 'VIEWER')
    const before = process.cpuUsage()
    await change(person, password, 'x9$k'.repeat(64))
    // The estimate's work grows faster than the length, so only the beginning is judged.
    expect(process.cpuUsage(before).user / 1e6).toBeLessThan(3)
  })

  it('is changed with the old one, which ends the other sessions on every instance and keeps this one', async () => {
    const person = await addMember(world, org.id, 'VIEWER')
    const other = bearer(await signIn(person.email, password))
    expect((await viewer(other, two)).errors).toEqual([])
    expect((await change(person, password, better)).errors).toEqual([])
    expect((await viewer(other, two)).code).toBe('UNAUTHENTICATED')
    expect((await viewer(person, two)).errors).toEqual([])
    expect((await signIn(person.email, password, two)).code).toBe('INVALID_CREDENTIALS')
    expect((await signIn(person.email, better, two)).errors).toEqual([])
    expect((await mailbox.to(person.email)).headers.get('subject')).toEqual(['Your password was changed'])
  })

  it('is not changed with a wrong old one, and not after many guesses', async () => {
    const person = await addMember(world, org.id, 'VIEWER')
    expect((await change(person, 'wrong', better)).code).toBe('INVALID_CREDENTIALS')
    const codes = []
    for (let i = 0; i < 12; i += 1) codes.push((await change(person, `wrong ${i}`, better)).code)
    expect(codes.at(-1)).toBe('RATE_LIMITED')
    expect((await viewer(person)).errors).toEqual([])
    expect((await signIn(person.email, password)).errors).toEqual([])
  })

  it('is not changed by an API key', async () => {
    const key = await createKey(world, org.developer, ['user:write'])
    const { data } = await world.graphql('mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { sha256 } }', { input: { document: changeText } }, org.developer) // prettier-ignore
    const answer = await world.post(
      { documentId: data['registerPersistedOperation'].sha256, variables: { input: { currentPassword: password, newPassword: better } } }, // prettier-ignore
      key,
    )
    expect(answer.code).toBe('FORBIDDEN')
  })

  it('lets one of two changes at the same moment win', async () => {
    const person = await addMember(world, org.id, 'VIEWER')
    const answers = await Promise.all([change(person, password, better), change(person, password, `${better} two`)])
    expect(answers.map(({ code }) => code).sort()).toEqual(['CONFLICT', undefined])
  })

  it('is reset by a token from the mail, once, which ends every session on every instance', async () => {
    const person = await addMember(world, org.id, 'VIEWER')
    await request(person.email)
    const token = tokenIn(await mailbox.to(person.email))
    expect((await reset(token)).data['resetPassword']).toEqual({ accepted: true })
    expect((await reset(token)).code).toBe('INVALID_CREDENTIALS')
    expect((await viewer(person, two)).code).toBe('UNAUTHENTICATED')
    expect((await signIn(person.email, better)).errors).toEqual([])
    expect((await signIn(person.email, password)).code).toBe('INVALID_CREDENTIALS')
  })

  it('is reset once though the token is used twice at the same moment', async () => {
    const person = await addMember(world, org.id, 'VIEWER')
    await request(person.email)
    const token = tokenIn(await mailbox.to(person.email))
    const answers = await Promise.all([reset(token), reset(token, `${better} two`), reset(token, `${better} three`)])
    expect(answers.filter(({ code }) => code === undefined)).toHaveLength(1)
    expect(answers.filter(({ code }) => code === 'INVALID_CREDENTIALS')).toHaveLength(2)
  })

  it('is not reset by an expired, altered or older token, nor by a weak password, which uses nothing up', async () => {
    const person = await addMember(world, org.id, 'VIEWER')
    await request(person.email)
    const older = tokenIn(await mailbox.to(person.email))
    await request(person.email)
    const token = tokenIn(await mailbox.to(person.email, 2))
    expect((await reset(`${token.slice(0, -1)}${token.endsWith('A') ? 'B' : 'A'}`)).code).toBe('INVALID_CREDENTIALS')
    expect((await reset(token, 'password1234')).code).toBe('BAD_USER_INPUT')
    now = new Date(Date.now() + 31 * 60_000)
    expect((await reset(token)).code).toBe('INVALID_CREDENTIALS')
    now = new Date()
    expect((await reset(token)).errors).toEqual([])
    expect((await reset(older)).code).toBe('INVALID_CREDENTIALS')
  })

  it('stores and logs no token and no password', async () => {
    const person = await addMember(world, org.id, 'VIEWER')
    await request(person.email)
    const token = tokenIn(await mailbox.to(person.email))
    await mailer(world.platform).deliver()
    const rows = await world.platform.database.read(system(), async (tx) => [
      await tx.oneTimeToken.findMany(),
      await tx.mailOutbox.findMany(),
    ])
    expect(JSON.stringify(rows)).not.toContain(token)
    await reset(token)
    expect(world.logged.join('')).not.toContain(token)
    expect(world.logged.join('')).not.toContain(better)
  })

  it('sends at most three mails an hour to an account, and answers the rest as it answers the first', async () => {
    const person = await addMember(world, org.id, 'VIEWER')
    const sent = () => mailbox.received.filter(({ to }) => to.includes(person.email)).length
    const answers = await Promise.all(Array.from({ length: 12 }, () => request(person.email)))
    expect(new Set(answers.map(({ status, data, errors }) => JSON.stringify([status, data, errors]))).size).toBe(1)
    await mailer(world.platform).deliver()
    expect(sent()).toBe(3)
    now = new Date(Date.now() + 3_601_000)
    await request(person.email)
    await mailer(world.platform).deliver()
    now = new Date()
    expect(sent()).toBe(4)
  })

  it('is hashed anew at sign-in when the cost has risen, and no request fails meanwhile', async () => {
    const people = await Promise.all(Array.from({ length: 4 }, () => addMember(world, org.id, 'VIEWER')))
    const costs = async (): Promise<Set<number>> => {
      const where = { id: { in: people.map(({ userId }) => userId) } }
      const users = await world.platform.database.read(system(), (tx) =>
        tx.user.findMany({ where, select: { passwordHash: true } }),
      )
      return new Set(users.map(({ passwordHash }) => bcrypt.getRounds(passwordHash)))
    }
    expect(await costs()).toEqual(new Set([4]))
    const dearer = await createTwin(world, settings(), { hasher: new Hasher(6) })
    const answers = await Promise.all(
      people.flatMap((person) => [
        ...[dearer, world, dearer, two].map((on) => signIn(person.email, password, on)),
        ...[dearer, world].map((on) => viewer(person, on)),
      ]),
    )
    expect(answers).toHaveLength(24)
    expect(answers.flatMap(({ errors }) => errors)).toEqual([])
    expect(await costs()).toEqual(new Set([6]))
    // An instance that still has the lower cost leaves the dearer hash as it is.
    expect((await signIn(people[0]?.email ?? '', password)).errors).toEqual([])
    expect(await costs()).toEqual(new Set([6]))
    await dearer.close()
  })
})
