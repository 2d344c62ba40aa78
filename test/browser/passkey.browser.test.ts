import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { addMember, password, seedOrganization, type Person } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'
import { launchChromium } from './chromium.ts'

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

let server: Server
let world: World
let browser: Browser
let tab: Page
let person: Person

async function answer(request: IncomingMessage): Promise<Response> {
  if (request.url === '/') return new Response(page, { headers: { 'content-type': 'text/html' } })
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const headers = Object.entries(request.headers).map(([name, value]): [string, string] => [name, String(value)])
  const init = { method: request.method ?? 'GET', headers, ...(chunks.length ? { body: Buffer.concat(chunks) } : {}) }
  return world.fetch(request.url ?? '/', init)
}

beforeAll(async () => {
  server = createServer((request, response) => {
    void answer(request).then(async (given) => {
      response.writeHead(given.status, Object.fromEntries(given.headers))
      response.end(Buffer.from(await given.arrayBuffer()))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const origin = `http://localhost:${(server.address() as AddressInfo).port}`
  world = await createWorld({ PUBLIC_URL: origin })
  person = await addMember(world, (await seedOrganization(world)).id, 'ORG_ADMIN')
  browser = await launchChromium()
  tab = await browser.newPage()
  await tab.goto(origin)
  const devtools = await tab.context().newCDPSession(tab)
  await devtools.send('WebAuthn.enable')
  await devtools.send('WebAuthn.addVirtualAuthenticator', {
    options: {
      protocol: 'ctap2',
      transport: 'internal',
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  })
})
afterAll(async () => {
  await browser.close()
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  await world.close()
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
