import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { mailer } from '../../src/kernel/mail.ts'
import { readMail } from '../harness/mailbox.ts'
import { addMember, password, seedOrganization, type Organization, type Person } from '../harness/seed.ts'
import { MfaClient, MovableClock } from '../sessions/mfaHarness.ts'
import { launchChromium } from './chromium.ts'
import { builtGraphiql } from './graphiqlBuild.ts'
import { addAuthenticator, servePlatform, type PlatformServer } from './platformServer.ts'

const clock = new MovableClock()
let server: PlatformServer
let client: MfaClient
let org: Organization
let browser: Browser
let page: Page
let person: Person
let complaints: string[]

beforeAll(async () => {
  await builtGraphiql()
  server = await servePlatform({ clock: clock.now })
  client = new MfaClient(server.world, clock)
  org = await seedOrganization(server.world)
  browser = await launchChromium()
}, 180_000)
afterAll(async () => {
  await browser?.close()
  await server?.close()
})

beforeEach(async () => {
  person = await addMember(server.world, org.id, 'ORG_ADMIN')
  page = await (await browser.newContext()).newPage()
  complaints = []
  page.on('pageerror', (error) => complaints.push(`uncaught: ${error.message}`))
  page.on('console', (message) => {
    if (/content security policy/i.test(message.text())) complaints.push(message.text())
  })
  await page.goto(`${server.origin}/graphql`)
}, 60_000)
afterEach(async () => {
  await page.context().close()
  expect(complaints).toEqual([])
})

async function givePassword(): Promise<void> {
  await page.getByLabel('E-mail').fill(person.email)
  await page.getByLabel('Password').fill(password)
  await page.getByRole('button', { name: 'Sign in' }).click()
}

/** Signs in as somebody who has a second factor; answers with what the page then sends as its credential. */
async function signedIn(): Promise<{ authorization: string }> {
  await page.getByText(`Signed in as ${person.email}`).waitFor()
  const sent = page.waitForRequest((request) => request.headers()['authorization'] !== undefined)
  await page.getByRole('button', { name: /Execute query/ }).click()
  return { authorization: (await sent).headers()['authorization'] ?? '' }
}

const giveCode = async (code: string): Promise<void> => {
  await page.getByLabel('Code', { exact: true }).fill(code)
  await page.getByRole('button', { name: 'Continue' }).click()
}
const choose = (method: string) => page.getByRole('combobox', { name: 'Second factor' }).selectOption(method)

describe('signing in on the page of GraphiQL, with a second factor', () => {
  it('by an authenticator app: a wrong code is refused, the right one opens a session that may administer', async () => {
    const { secret } = await client.enrolTotp(person)
    await givePassword()
    await page.getByText('Give a second factor to finish signing in.').waitFor()
    expect(await page.evaluate('document.activeElement.name')).toBe('code')
    await giveCode('000000')
    await page.getByText('This second factor was not accepted.').waitFor()
    await giveCode(client.nextCode(secret))
    expect((await client.administer(await signedIn())).errors).toEqual([])
  })

  it('by a recovery code, after going back to the password once', async () => {
    const { recoveryCodes } = await client.enrolTotp(person)
    await givePassword()
    await page.getByRole('button', { name: 'Cancel' }).click()
    await givePassword()
    await choose('RECOVERY_CODE')
    await giveCode(recoveryCodes[0] ?? '')
    expect((await client.administer(await signedIn())).errors).toEqual([])
  })

  it('by a code that is mailed', async () => {
    const folder = join(server.world.platform.config.dataDirectory, 'mail')
    const codes = async (): Promise<string[]> => {
      await mailer(server.world.platform).deliver()
      const raw = await Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8')))
      const mails = raw.filter((each) => each.includes(person.email)).map(readMail)
      return mails.flatMap(({ text }) => /Your code is (\d{8})\./.exec(text)?.[1] ?? [])
    }
    await client.must('enrolEmailCodes', { password }, 'expiresAt', person)
    const [first = ''] = await codes()
    await client.must('confirmEmailCodes', { code: first }, 'accessToken', person)
    await givePassword()
    await page.getByRole('button', { name: 'Send code' }).click()
    await page.getByText('A code is on its way to your address.').waitFor()
    const [second = ''] = (await codes()).filter((code) => code !== first)
    await giveCode(second)
    await signedIn()
  })

  it('by a passkey', async () => {
    await addAuthenticator(page)
    await page.evaluate(`(async (authorization, password) => {
      const ask = async (query, input) => {
        const headers = { 'content-type': 'application/json', authorization }
        const body = JSON.stringify({ query, variables: { input } })
        return (await (await fetch('/graphql', { method: 'POST', headers, body })).json()).data.answer
      }
      const { options } = await ask('mutation ($input: StartPasskeyRegistrationInput!) { answer: startPasskeyRegistration(input: $input) { options } }', { password })
      const made = await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
      await ask('mutation ($input: RegisterPasskeyInput!) { answer: registerPasskey(input: $input) { accessToken } }', { attestation: made.toJSON() })
    })(${JSON.stringify(person.authorization)}, ${JSON.stringify(password)})`)
    await givePassword()
    await page.getByRole('button', { name: 'Use passkey' }).click()
    expect((await client.administer(await signedIn())).errors).toEqual([])
  })
}, 90_000)

describe('signing out on the page', () => {
  it('ends the session on the server, not only on the screen', async () => {
    await givePassword()
    const as = await signedIn()
    expect((await server.world.graphql('{ viewer { id } }', {}, as)).errors).toEqual([])
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByLabel('Password').waitFor()
    expect((await server.world.graphql('{ viewer { id } }', {}, as)).code).toBe('UNAUTHENTICATED')
  })
}, 90_000)
