import { randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createKey, fresh, password, seedOrganization, type Organization, type Person } from '../harness/seed.ts'
import { createWorld, type Answer, type World } from '../harness/world.ts'
import { usable } from '../../src/modules/connections/authorizationServer.ts'
import { startAuthorizationServer, visit, type AuthorizationServer } from './peers/authorizationServer.ts'
import { begin, oauthService, publicUrl, returnedBy, run, whoami, type Returned } from './peers/connecting.ts' // prettier-ignore
import { resourcePath, serverPath, startHostile, type Hostile } from './peers/hostile.ts'
import { startProtectedUpstream, type ProtectedUpstream } from './peers/protectedUpstream.ts'

let world: World
let org: Organization
let other: Organization
let server: AuthorizationServer
let upstream: ProtectedUpstream
let hostile: Hostile
let clockOffsetMs = 0

beforeAll(async () => {
  world = await createWorld(
    { PUBLIC_URL: publicUrl, OAUTH_TIMEOUT_SECONDS: '4', OAUTH_ATTEMPTS_PER_USER_PER_HOUR: '0' },
    { clock: () => new Date(Date.now() + clockOffsetMs) },
  )
  org = await seedOrganization(world)
  other = await seedOrganization(world)
  server = await startAuthorizationServer({ fetch: (path) => world.fetch(path) })
  upstream = await startProtectedUpstream('modern', server)
  hostile = await startHostile()
})
afterAll(async () => {
  await world.close()
  await server.close()
  await upstream.close()
  await hostile.close()
})

const complete = (answer: object, as: Person): Promise<Answer<any>> => run(world, 'completeServiceConnection', answer, as) // prettier-ignore
const codeExchanges = (): number => server.tokenRequests('authorization_code').length
const isConnected = async (slug: string, as: Person): Promise<boolean> => (await whoami(world, as, slug)).errors.length === 0 // prettier-ignore

describe('the answer of an authorization server', () => {
  let serviceId: string
  let slug: string
  let answer: Returned
  beforeAll(async () => ({ serviceId, slug } = await oauthService(world, org.developer, upstream.url)))
  beforeEach(async () => {
    answer = returnedBy(await visit(await begin(world, org.developer, serviceId), { login: 'dev' }))
    expect(answer).toMatchObject({ serviceId: expect.stringMatching(/^[0-9a-f-]{36}$/), iss: server.issuer })
  })
  afterEach(async () => {
    clockOffsetMs = 0
    await run(world, 'disconnectService', { serviceId }, org.developer)
  })

  it('is taken from the user and the session that asked, and is nothing to anybody else, who all hear the same', async () => {
    const again = await world.graphql<any>(
      'mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }',
      { input: { email: org.developer.email, password } },
    )
    const elsewhere = { ...org.developer, authorization: `Bearer ${again.data.signIn.accessToken}` }
    const { serviceId: otherService } = await oauthService(world, org.developer, upstream.url)
    const before = codeExchanges()
    const attempts: [object, Person][] = [
      [answer, org.colleague],
      [answer, org.admin],
      [answer, other.developer],
      [answer, elsewhere],
      [{ ...answer, serviceId: otherService }, org.developer],
      [{ ...answer, state: randomBytes(32).toString('base64url') }, org.developer],
    ]
    const answers = await Promise.all(attempts.map(([input, as]) => complete(input, as)))
    for (const { code, errors } of answers) {
      expect(code).toBe('NOT_FOUND')
      expect(errors[0]?.message).toBe(answers[0]?.errors[0]?.message)
    }
    expect(codeExchanges()).toBe(before)
    for (const person of [org.colleague, org.admin, org.developer]) expect(await isConnected(slug, person)).toBe(false)
    // None of them used it up.
    expect((await complete(answer, org.developer)).errors).toEqual([])
    expect(await isConnected(slug, org.developer)).toBe(true)
  })

  it('is taken once, however many bring it at the same moment, and never again', async () => {
    const before = codeExchanges()
    const answers = await Promise.all(Array.from({ length: 5 }, () => complete(answer, org.developer)))
    expect(answers.filter(({ errors }) => errors.length === 0)).toHaveLength(1)
    expect(codeExchanges() - before).toBe(1)
    expect((await complete(answer, org.developer)).code).toBe('NOT_FOUND')
  })

  it('is not taken once its time is over', async () => {
    clockOffsetMs = 601_000
    expect((await complete(answer, org.developer)).code).toBe('NOT_FOUND')
  })

  it.each([
    ['of another server', () => ({ iss: 'https://attacker.example' })],
    ['of another server by a slash', () => ({ iss: `${server.issuer}/` })],
    ['without the name of its server, though that server names itself', () => ({ iss: undefined })],
  ])('is refused before its code goes anywhere, and is used up: %s', async (_, change) => {
    const before = codeExchanges()
    const refused = await complete({ ...answer, ...change() }, org.developer)
    expect(refused.errors[0]).toMatchObject({ extensions: { code: 'BAD_USER_INPUT', issues: [{ path: ['iss'] }] } })
    expect(codeExchanges()).toBe(before)
    expect((await complete(answer, org.developer)).code).toBe('NOT_FOUND')
  })

  it('gives nothing with a code of another answer: the proof of the question does not fit', async () => {
    const second = returnedBy(await visit(await begin(world, org.developer, serviceId), { login: 'dev' }))
    const refused = await complete({ ...second, code: answer.code }, org.developer)
    expect(refused.errors[0]).toMatchObject({ extensions: { code: 'UPSTREAM_ERROR', refusal: 'invalid_grant' } })
    expect(await isConnected(slug, org.developer)).toBe(false)
  })

  it('gives nothing with a code that was used', async () => {
    expect((await complete(answer, org.developer)).errors).toEqual([])
    const second = returnedBy(await visit(await begin(world, org.developer, serviceId), { login: 'dev' }))
    const refused = await complete({ ...second, code: answer.code }, org.developer)
    expect(refused.errors[0]).toMatchObject({ extensions: { refusal: 'invalid_grant' } })
  })

  it('can be a refusal, which is told by its code alone', async () => {
    const denied = returnedBy(await visit(await begin(world, org.developer, serviceId), { cancel: true }))
    expect(denied.error).toBe('access_denied')
    const told = await complete(denied, org.developer)
    expect(told.errors[0]).toMatchObject({ extensions: { code: 'UPSTREAM_ERROR', refusal: 'access_denied' } })
    const made = returnedBy(await visit(await begin(world, org.developer, serviceId), { cancel: true }))
    const invented = await complete({ ...made, error: '<b>call us</b>' }, org.developer)
    expect(invented.errors[0]).toMatchObject({ extensions: { refusal: 'unknown_error' } })
    expect(JSON.stringify(invented.errors)).not.toContain('call us')
  })

  it('needs its value in the form that was given', async () => {
    for (const state of ['', 'short', `${'a'.repeat(42)}!`])
      expect((await complete({ ...answer, state }, org.developer)).code).toBe('BAD_USER_INPUT')
  })

  it('is in the trail, refused or not, without what it said', async () => {
    await complete({ ...answer, iss: 'https://attacker.example' }, org.developer)
    const { data } = await world.graphql<any>(
      '{ auditTrail(first: 5) { edges { node { action outcome detail } } } }',
      {},
      org.admin,
    )
    const events = data.auditTrail.edges.map(({ node }: { node: object }) => node)
    expect(events).toContainEqual({ action: 'serviceConnection.refused', outcome: 'failed', detail: { code: 'BAD_USER_INPUT' } }) // prettier-ignore
    expect(events).toContainEqual({ action: 'serviceConnection.begun', outcome: 'ok', detail: { issuer: server.issuer, shared: false } }) // prettier-ignore
    for (const secret of [answer.code, answer.state]) expect(JSON.stringify(events)).not.toContain(secret)
  })
})

describe('who may connect an account', () => {
  it('is a person with `user:token`, in a session, at a service of their organisation that takes accounts', async () => {
    const { serviceId } = await oauthService(world, org.developer, upstream.url)
    const ask = async (as: object, id = serviceId) => (await run(world, 'connectService', { serviceId: id }, as, '{ authorizationUrl }')).code // prettier-ignore
    expect(await ask({})).toBe('UNAUTHENTICATED')
    expect(await ask(org.viewer)).toBe('FORBIDDEN')
    expect(await ask(other.developer)).toBe('NOT_FOUND')
    const plain = { slug: 'plain', name: 'plain', endpoint: upstream.url, credentialMode: 'PERSONAL' }
    const { data } = await run(world, 'createService', plain, org.developer)
    expect(await ask(org.developer, data.createService.id)).toBe('BAD_USER_INPUT')
    const document = 'mutation ($input: ConnectServiceInput!) { connectService(input: $input) { authorizationUrl } }'
    const registered = await run(world, 'registerPersistedOperation', { document }, org.admin, '{ sha256 }')
    const key = await createKey(world, org.developer, ['user:token'])
    const byKey = await world.post({ documentId: registered.data.registerPersistedOperation.sha256, variables: { input: { serviceId } } }, { authorization: key.authorization }) // prettier-ignore
    expect(byKey.code).toBe('FORBIDDEN')
  })

  it('is an administrator with a fresh second factor where the account is the organisation’s, at both ends', async () => {
    const { serviceId } = await oauthService(world, org.developer, upstream.url, 'SHARED')
    const ask = async (as: Person, name = 'connectSharedService') => (await run(world, name, { serviceId }, as, '{ authorizationUrl }')).code // prettier-ignore
    expect(await ask(org.developer)).toBe('FORBIDDEN')
    expect(await ask(org.adminWithoutMfa)).toBe('MFA_REQUIRED')
    expect(await ask(org.developer, 'connectService')).toBe('BAD_USER_INPUT')
    const admin = await fresh(world, org.admin)
    clockOffsetMs = 300_000
    const answer = returnedBy(await visit(await begin(world, admin, serviceId, true), { login: 'robot' }))
    expect((await complete(answer, org.developer)).code).toBe('NOT_FOUND')
    // The second factor has aged since it began: it is asked for anew, and the answer still stands.
    clockOffsetMs = 650_000
    expect((await complete(answer, admin)).code).toBe('MFA_REQUIRED')
    expect((await complete(answer, await fresh(world, admin))).errors).toEqual([])
    clockOffsetMs = 0
    for (const name of ['disconnectSharedService', 'setOAuthClient'] as const) {
      const input = { serviceId, ...(name === 'setOAuthClient' ? { issuer: server.issuer, clientId: 'x' } : {}) }
      expect((await run(world, name, input, org.developer)).code).toBe('FORBIDDEN')
      expect((await run(world, name, input, org.adminWithoutMfa)).code).toBe('MFA_REQUIRED')
      expect((await run(world, name, input, await fresh(world, other.admin))).code).toBe('NOT_FOUND')
    }
  })
})

describe('metadata of a hostile upstream', () => {
  let serviceId: string
  beforeAll(async () => ({ serviceId } = await oauthService(world, org.developer, hostile.endpoint)))
  beforeEach(() => hostile.decent())

  const attempt = () => run(world, 'connectService', { serviceId }, org.developer, '{ authorizationUrl }')
  const spoil = (path: string, change: object) => hostile.answers.set(path, { ...(hostile.answers.get(path) as object), ...change }) // prettier-ignore

  it('would be accepted without its one flaw', async () => {
    const { errors, data } = await attempt()
    expect(errors).toEqual([])
    const url = new URL(data.connectService.authorizationUrl)
    expect(Object.fromEntries(url.searchParams)).toMatchObject({ response_type: 'code', code_challenge_method: 'S256', client_id: 'given', resource: hostile.endpoint }) // prettier-ignore
    expect(url.searchParams.get('code_challenge')).toMatch(/^[\w-]{43}$/)
  })

  const notAllowed = { message: 'The upstream address is not allowed.', extensions: { code: 'UPSTREAM_ERROR' } }

  it.each(['http://10.0.0.1', 'https://169.254.169.254', 'https://[::1]:8443', 'https://[::ffff:10.0.0.1]', 'http://0x0a000001'])(
    'does not make the platform ask a private address: %s',
    async (address) => {
      spoil(resourcePath, { authorization_servers: [address] })
      expect((await attempt()).errors[0]).toMatchObject(notAllowed)
    },
  ) // prettier-ignore

  it('does not make the platform ask a private address in a challenge, as a place to register, or for tokens', async () => {
    const challenge = 'Bearer resource_metadata="http://10.0.0.1/x"'
    hostile.answers.set('/mcp', (_, response) => void response.writeHead(401, { 'www-authenticate': challenge }).end())
    expect((await attempt()).errors[0]).toMatchObject(notAllowed)

    hostile.decent()
    const { serviceId: unregistered } = await oauthService(world, org.developer, hostile.endpoint)
    spoil(serverPath, { registration_endpoint: 'http://10.0.0.1/register' })
    expect((await run(world, 'connectService', { serviceId: unregistered }, org.developer, '{ expiresAt }')).errors[0]).toMatchObject(notAllowed) // prettier-ignore

    hostile.decent()
    spoil(serverPath, { token_endpoint: 'http://10.0.0.1/token' })
    const { data } = await attempt()
    const state = new URL(data.connectService.authorizationUrl).searchParams.get('state')
    const given = { serviceId: hostileId(data.connectService.authorizationUrl), state, code: 'a-code-of-the-canary' }
    expect((await complete(given, org.developer)).errors[0]).toMatchObject(notAllowed)
  })

  it('does not lead the platform elsewhere by a redirect', async () => {
    hostile.answers.set(
      serverPath,
      (_, response) => void response.writeHead(302, { location: 'http://10.0.0.1/' }).end(),
    )
    expect((await attempt()).errors[0]?.extensions.code).toBe('UPSTREAM_ERROR')
  })

  it.each<[string, string, object]>([
    ['speaks of another resource', resourcePath, { resource: 'https://victim.example/mcp' }],
    ['names another issuer', serverPath, { issuer: 'https://victim.example' }],
    [
      'is of a server that knows other resources alone',
      serverPath,
      { protected_resources: ['https://victim.example/mcp'] },
    ],
    ['has no PKCE', serverPath, { code_challenge_methods_supported: undefined }],
    ['has PKCE in the clear alone', serverPath, { code_challenge_methods_supported: ['plain'] }],
    ['has no code grant', serverPath, { response_types_supported: ['token'] }],
    ['sends the browser to a script', serverPath, { authorization_endpoint: 'javascript:alert(1)' }],
    ['sends the browser to data', serverPath, { authorization_endpoint: 'data:text/html,x' }],
    ['has credentials in an address', serverPath, { token_endpoint: 'https://a:b@victim.example/' }],
    ['names no server', resourcePath, { authorization_servers: [] }],
    ['is enormous', serverPath, { padding: 'x'.repeat(400_000) }],
  ])('is refused where it %s', async (_, path, change) => {
    spoil(path, change)
    const { errors } = await attempt()
    expect(errors[0]?.extensions.code).toBe('UPSTREAM_ERROR')
    expect(hostile.seen.some((request) => request.path === '/register')).toBe(false)
  })

  it.each<[string, (request: unknown, response: import('node:http').ServerResponse) => void]>([
    ['never answered', () => undefined],
    ['dripped', (_, response) => {
      response.writeHead(200, { 'content-type': 'application/json' })
      const timer = setInterval(() => response.write(' '), 50)
      response.on('close', () => clearInterval(timer))
    }],
  ])('is given up on where it is %s', async (_, answer) => {
    hostile.answers.set(serverPath, answer)
    const started = Date.now()
    expect((await attempt()).errors[0]?.extensions.code).toBe('UPSTREAM_TIMEOUT')
    expect(Date.now() - started).toBeLessThan(20_000)
  }) // prettier-ignore

  it('of an https server has no endpoint in cleartext', () => {
    expect(usable('http://issuer.example/token', 'https://issuer.example')).toBeNull()
    expect(usable('https://issuer.example/token', 'https://issuer.example')).toBeInstanceOf(URL)
  })

  it.each<[string, (response: import('node:http').ServerResponse) => void]>([
    ['redirects', (response) => void response.writeHead(307, { location: `${hostile.origin}/elsewhere` }).end()],
    ['gives a token of a kind that is not a bearer’s', (response) => void response.writeHead(200, { 'content-type': 'application/json' }).end('{"access_token":"canary-of-a-mac-token","token_type":"mac"}')],
    ['gives a token that would break out of its header', (response) => void response.writeHead(200, { 'content-type': 'application/json' }).end('{"access_token":"canary\\r\\nx: y","token_type":"bearer"}')],
    ['gives a page', (response) => void response.writeHead(200, { 'content-type': 'text/html' }).end('<p>canary')],
    ['is in trouble', (response) => void response.writeHead(500).end('canary')],
  ])('does not help a token endpoint that %s', async (_, answer) => {
    const { data } = await attempt()
    const state = new URL(data.connectService.authorizationUrl).searchParams.get('state')
    hostile.answers.set('/token', (_request, response) => answer(response))
    const given = { serviceId: hostileId(data.connectService.authorizationUrl), state, code: 'a-code-of-the-canary' }
    const { errors } = await complete(given, org.developer)
    expect(errors[0]?.extensions.code).toBe('UPSTREAM_ERROR')
    expect(hostile.seen.filter(({ path }) => path === '/elsewhere')).toEqual([])
    expect(JSON.stringify([errors, world.logged])).not.toMatch(/canary/)
  }) // prettier-ignore
})

const hostileId = (authorizationUrl: string): string =>
  new URL(new URL(authorizationUrl).searchParams.get('redirect_uri') ?? '').pathname.split('/').pop() ?? ''
