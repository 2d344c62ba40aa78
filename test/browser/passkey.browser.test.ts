import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { addMember, password, seedOrganization, type Person } from '../harness/seed.ts'
import { launchChromium } from './chromium.ts'
import { addAuthenticator, servePlatform, type PlatformServer } from './platformServer.ts'

/** A page of the frontend's, as small as it can be: it speaks GraphQL and WebAuthn and keeps the token in memory. */
const page = `<!doctype html><title>Passkeys</title><script>
let accessToken = null
async function call(field, type, input, selection) {
  const query = input === undefined
    ? 'mutation { ' + field + ' { ' + selection + ' } }'
    : 'mutation ($input: ' + type + '!) { ' + field + '(input: $input) { ' + selection + ' } }'
  const headers = { 'content-type': 'application/json', 'x-requested-with': 'mcp-platform' }
  if (accessToken) headers.authorization = 'Bearer ' + accessToken
  const response = await fetch('/graphql', { method: 'POST', headers, body: JSON.stringify({ query, variables: { input } }) })
  const { data, errors } = await response.json()
  if (errors) return { code: errors[0].extensions.code, message: errors[0].message }
  if (data[field].accessToken) accessToken = data[field].accessToken
  return data[field]
}
const get = async (options) => (await navigator.credentials.get({
  publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) })).toJSON()
const create = async (options) => (await navigator.credentials.create({
  publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })).toJSON()
const forget = () => { accessToken = null }
</script>`

let server: PlatformServer
let browser: Browser
let tab: Page
let person: Person
beforeAll(async () => {
  server = await servePlatform({}, page)
  const { world } = server
  person = await addMember(world, (await seedOrganization(world)).id, 'ORG_ADMIN')
  browser = await launchChromium()
  tab = await browser.newPage()
  await tab.goto(server.origin)
  await addAuthenticator(tab)
})
afterAll(async () => {
  await browser.close()
  await server.close()
})

const run = <T = Record<string, unknown>>(script: string): Promise<T> => tab.evaluate(script)
const credentials = JSON.stringify({ email: '', password })
const rename = `call('updateOrganization', 'UpdateOrganizationInput', { name: 'Renamed in a browser' }, 'id')`

describe('a real browser with a virtual authenticator', () => {
  it('registers a passkey, which opens what administrators do', async () => {
    const given = credentials.replace('""', JSON.stringify(person.email))
    await run(`call('signIn', 'SignInInput', ${given}, 'accessToken')`)
    expect(await run(rename)).toMatchObject({ code: 'MFA_REQUIRED' })
    const enrolled = await run(`(async () => {
      const { options } = await call('startPasskeyRegistration', 'StartPasskeyRegistrationInput', { password: ${JSON.stringify(password)} }, 'options')
      return call('registerPasskey', 'RegisterPasskeyInput', { attestation: await create(options), label: 'Laptop' }, 'accessToken factor { kind label } recoveryCodes')
    })()`)
    expect(enrolled).toMatchObject({ factor: { kind: 'PASSKEY', label: 'Laptop' } })
    expect(enrolled['recoveryCodes']).toHaveLength(10)
    expect(await run(rename)).toMatchObject({ id: expect.any(String) })
  })

  it('signs in with it after the password', async () => {
    const given = credentials.replace('""', JSON.stringify(person.email))
    const signedIn = await run(`(async () => {
      forget()
      const { challenge } = await call('signIn', 'SignInInput', ${given}, 'accessToken challenge { id methods }')
      const { options } = await call('startPasskeySignIn', 'StartPasskeySignInInput', { challengeId: challenge.id }, 'options')
      const proof = { challengeId: challenge.id, method: 'PASSKEY', assertion: await get(options) }
      return call('completeSignIn', 'CompleteSignInInput', proof, 'accessToken user { name }')
    })()`)
    expect(signedIn).toMatchObject({ user: { name: 'ORG_ADMIN person' } })
    expect(await run(rename)).toMatchObject({ id: expect.any(String) })
  })

  it('signs in with it alone', async () => {
    const signedIn = await run(`(async () => {
      forget()
      const { options } = await call('startPasskeySignIn', 'StartPasskeySignInInput', {}, 'options')
      return call('signInWithPasskey', 'SignInWithPasskeyInput', { assertion: await get(options) }, 'accessToken user { name }')
    })()`)
    expect(signedIn).toMatchObject({ user: { name: 'ORG_ADMIN person' } })
  })

  it('steps up a session that stood before the passkey did', async () => {
    await run(`(accessToken = ${JSON.stringify(person.authorization.slice('Bearer '.length))}, undefined)`)
    expect(await run(rename)).toMatchObject({ code: 'MFA_REQUIRED' })
    const stepped = await run(`(async () => {
      const { options } = await call('startPasskeyStepUp', '', undefined, 'options')
      return call('stepUp', 'StepUpInput', { method: 'PASSKEY', assertion: await get(options) }, 'accessToken')
    })()`)
    expect(stepped).toMatchObject({ accessToken: expect.any(String) })
    expect(await run(rename)).toMatchObject({ id: expect.any(String) })
  })
})
