import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mailer } from '../../src/kernel/mail.ts'
import { openMailbox, tokenIn, type Mailbox } from '../harness/mailbox.ts'
import { password } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'

const signUpText =
  'mutation ($input: SignUpInput!) { signUp(input: $input) { accessToken expiresAt emailVerification user { id } organization { id } } }'
const signInText = 'mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }'
const verifyText = 'mutation ($input: VerifyEmailInput!) { verifyEmail(input: $input) { accepted } }'
const resetText = 'mutation ($input: ResetPasswordInput!) { resetPassword(input: $input) { accepted } }'
const address = () => `p-${randomUUID()}@example.com`

describe('an e-mail address, where verification is on', () => {
  let mailbox: Mailbox
  let world: World
  let now = new Date()
  beforeAll(async () => {
    mailbox = await openMailbox()
    const settings = {
      SMTP_URL: mailbox.url,
      FRONTEND_URL: 'https://front.example/app/',
      SIGN_UPS_PER_SOURCE_PER_HOUR: '1000',
    }
    world = await createWorld(settings, { clock: () => now })
  })
  afterAll(async () => {
    await world.close()
    await mailbox.close()
  })

  const signUp = (email: string, given = password) =>
    world.graphql(signUpText, { input: { email, password: given, name: 'Ada', organizationName: 'Engines' } })
  const signIn = (email: string, given = password) => world.graphql(signInText, { input: { email, password: given } })
  const verify = (token: string) => world.graphql(verifyText, { input: { token } })

  it('is verified by default where a relay is set', () => {
    expect(world.platform.config.emailVerification).toBe(true)
  })

  it('opens no session and no account before it is proven, and both after', async () => {
    const email = address()
    const answer = await signUp(email)
    expect(answer.data['signUp']).toEqual({ accessToken: null, expiresAt: null, emailVerification: true, user: null, organization: null }) // prettier-ignore
    expect(answer.headers.getSetCookie()).toEqual([])
    const mail = await mailbox.to(email)
    expect(mail.text).toContain(`https://front.example/app/verify-email#token=${tokenIn(mail)}`)
    const early = await signIn(email)
    expect([early.status, early.code]).toEqual([403, 'FORBIDDEN'])
    expect((await verify(tokenIn(mail))).errors).toEqual([])
    expect((await signIn(email)).errors).toEqual([])
    expect((await verify(tokenIn(mail))).code).toBe('INVALID_CREDENTIALS')
  })

  it('gets a new mail at a sign-in with the right password, and only then', async () => {
    const email = address()
    await signUp(email)
    await mailbox.to(email)
    expect((await signIn(email, 'a wrong password')).code).toBe('INVALID_CREDENTIALS')
    expect((await signIn(email)).code).toBe('FORBIDDEN')
    const second = await mailbox.to(email, 2)
    expect((await verify(tokenIn(second))).errors).toEqual([])
    expect((await signIn(email)).errors).toEqual([])
  })

  it('is bombed with three mails an hour at the most', async () => {
    const email = address()
    await signUp(email)
    for (let i = 0; i < 4; i += 1) expect((await signIn(email)).code).toBe('FORBIDDEN')
    for (let i = 0; i < 4; i += 1) await signUp(email)
    await mailer(world.platform).deliver()
    expect(mailbox.received.filter(({ to }) => to.includes(email))).toHaveLength(3)
  })

  it('is not proven by an expired token or one of another purpose', async () => {
    const email = address()
    await signUp(email)
    const token = tokenIn(await mailbox.to(email))
    now = new Date(Date.now() + 25 * 3_600_000)
    expect((await verify(token)).code).toBe('INVALID_CREDENTIALS')
    now = new Date()
    expect((await world.graphql(resetText, { input: { token, password: 'glacier mosaic thimble 77' } })).code).toBe('INVALID_CREDENTIALS') // prettier-ignore
  })

  it('is not revealed by signing up: the answer is the same, and mail tells its owner', async () => {
    const email = address()
    const first = await signUp(email)
    await verify(tokenIn(await mailbox.to(email)))
    const again = await signUp(email.toUpperCase(), 'quite another passphrase 99')
    expect([again.status, again.data, again.errors]).toEqual([first.status, first.data, first.errors])
    const mail = await mailbox.to(email, 2)
    expect(mail.headers.get('subject')).toEqual(['You have an account already'])
    expect((await signIn(email, 'quite another passphrase 99')).code).toBe('INVALID_CREDENTIALS')
    expect((await signIn(email)).errors).toEqual([])
    const reset = { token: tokenIn(mail), password: 'glacier mosaic thimble 77' }
    expect((await world.graphql(resetText, { input: reset })).errors).toEqual([])
  })

  it('that a stranger signed up with becomes its owner’s by a reset, and the stranger’s password is gone', async () => {
    const email = address()
    await signUp(email, 'the stranger chose this 31')
    await signUp(email, password)
    const mail = await mailbox.to(email, 2)
    await world.graphql(resetText, { input: { token: tokenIn(mail), password } })
    expect((await signIn(email, 'the stranger chose this 31')).code).toBe('INVALID_CREDENTIALS')
    expect((await signIn(email)).errors).toEqual([])
  })
})
