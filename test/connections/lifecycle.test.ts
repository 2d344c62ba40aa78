import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import { createApp } from '../../src/edge/app.ts'
import { buildSchema } from '../../src/schema.ts'
import { createKey, fresh, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'
import { startAuthorizationServer, visit, type AuthorizationServer } from './peers/authorizationServer.ts'
import {
  begin,
  connectAccount,
  mcpClient,
  oauthService,
  publicUrl,
  returnedBy,
  run,
  whoami,
} from './peers/connecting.ts'
import { startProtectedUpstream, type ProtectedUpstream } from './peers/protectedUpstream.ts'

let world: World
/** Another instance of the platform on the same database. */
let second: World
let org: Organization
let server: AuthorizationServer
let upstream: ProtectedUpstream

beforeAll(async () => {
  world = await createWorld({ PUBLIC_URL: publicUrl })
  org = await seedOrganization(world)
  const platform = { ...world.platform }
  const app = createApp(platform, buildSchema())
  second = { ...world, platform, app, graphql: async (query, variables = {}, as = {}) => {
    const init = { method: 'POST', headers: { 'content-type': 'application/json', ...as }, body: JSON.stringify({ query, variables }) }
    const body = await (await app.fetch(new Request('http://platform.test/graphql', init))).json()
    return { ...body, errors: body.errors ?? [], code: body.errors?.[0]?.extensions.code }
  } } as World // prettier-ignore
  // This one takes neither client documents nor public clients that register themselves.
  server = await startAuthorizationServer({
    settings: { clientAuthMethods: ['client_secret_basic', 'client_secret_post'] },
    clientDocuments: false,
  })
  upstream = await startProtectedUpstream('modern', server)
})
afterAll(async () => {
  await world.close()
  await server.close()
  await upstream.close()
})

const refreshes = (): number => server.tokenRequests('refresh_token').length
const registrations = () => server.seen.filter(({ path, method }) => path === '/reg' && method === 'POST')
/** Connects with a token that has run out by the time it is used. */
async function connectAged(slugless: { serviceId: string }, login: string): Promise<void> {
  server.accessTtl = 5
  await connectAccount(world, org.developer, slugless.serviceId, { login })
  server.accessTtl = 3600
}
const mustReconnect = async (slug: string): Promise<boolean | null> => {
  const { data } = await world.graphql<any>('query ($slug: String!) { service(slug: $slug) { oauthConnection { mustReconnect } } }', { slug }, org.developer) // prettier-ignore
  return data.service.oauthConnection?.mustReconnect ?? null
}

describe('the client', () => {
  it('registers itself once for a service, and proves itself with the secret that it was given', async () => {
    const { serviceId, slug } = await oauthService(world, org.developer, upstream.url)
    await connectAccount(world, org.developer, serviceId, { login: 'one' })
    await connectAccount(world, org.colleague, serviceId, { login: 'two' })
    expect(registrations()).toHaveLength(1)
    expect(JSON.parse(registrations()[0]?.text ?? '')).toMatchObject({
      client_name: 'MCP Online Platform',
      redirect_uris: [`${publicUrl}/oauth/callback/${Buffer.from(serviceId, 'base64url').toString().split(':')[1]}`],
      application_type: 'web',
    })
    for (const { headers, body } of server.tokenRequests('authorization_code')) {
      expect(headers.authorization).toMatch(/^Basic /)
      expect(body.has('client_secret')).toBe(false)
    }
    expect((await whoami(world, org.colleague, slug)).errors).toEqual([])
  })

  it('is the one that an administrator entered, and its secret goes to its own issuer alone', async () => {
    const { serviceId, slug } = await oauthService(world, org.developer, upstream.url)
    const service = Buffer.from(serviceId, 'base64url').toString().split(':')[1] ?? ''
    const registered = { client_id: 'entered', client_secret: 'canary-secret-of-the-entered-client', redirect_uris: [`${publicUrl}/oauth/callback/${service}`], grant_types: ['authorization_code', 'refresh_token'], token_endpoint_auth_method: 'client_secret_post' as const } // prettier-ignore
    await server.clients.upsert('entered', registered, 3600)
    const admin = await fresh(world, org.admin)
    const enter = (issuer: string) =>
      run(world, 'setOAuthClient', { serviceId, issuer, clientId: 'entered', clientSecret: registered.client_secret, authMethod: 'client_secret_post' }, admin) // prettier-ignore
    expect((await enter('https://another.example')).errors).toEqual([])
    const before = server.seen.length
    const moved = await run(world, 'connectService', { serviceId }, org.developer, '{ authorizationUrl }')
    expect(moved.errors[0]).toMatchObject({ extensions: { code: 'SERVICE_UNCONFIGURED' }, message: expect.stringContaining('setOAuthClient') }) // prettier-ignore
    expect(JSON.stringify(server.seen.slice(before))).not.toContain('canary')

    expect((await enter(server.issuer)).errors).toEqual([])
    await connectAccount(world, org.developer, serviceId, { login: 'entered' })
    expect(server.tokenRequests('authorization_code').at(-1)?.body.get('client_secret')).toBe(registered.client_secret)
    expect((await whoami(world, org.developer, slug)).errors).toEqual([])
    const document =
      'query ($slug: String!) { service(slug: $slug) { oauthClient { issuer clientId } oauthRedirectUri } }'
    expect((await world.graphql<any>(document, { slug }, admin)).data.service).toEqual({ oauthClient: { issuer: server.issuer, clientId: 'entered' }, oauthRedirectUri: registered.redirect_uris[0] }) // prettier-ignore

    // A new secret of the same client keeps the accounts; another client, or none, does not.
    expect((await enter(server.issuer)).errors).toEqual([])
    expect((await whoami(world, org.developer, slug)).errors).toEqual([])
    expect((await run(world, 'removeOAuthClient', { serviceId }, admin)).errors).toEqual([])
    expect((await whoami(world, org.developer, slug)).code).toBe('SERVICE_UNCONFIGURED')
  })
})

describe('renewal', () => {
  it('is one exchange for two instances and many calls', async () => {
    const service = await oauthService(world, org.developer, upstream.url)
    await connectAged(service, 'instances')
    let release: () => void = () => {}
    server.hold = new Promise((resolve) => (release = resolve))
    const count = refreshes()
    const calls = Array.from({ length: 12 }, (_, n) => whoami(n % 2 ? world : second, org.developer, service.slug, n))
    await expect.poll(() => refreshes() - count, { timeout: 15_000 }).toBe(1)
    release()
    expect((await Promise.all(calls)).flatMap(({ errors }) => errors)).toEqual([])
    expect(refreshes() - count).toBe(1)
  })

  it('uses each refresh token once, as the server rotates them', async () => {
    const service = await oauthService(world, org.developer, upstream.url)
    server.accessTtl = 5
    await connectAccount(world, org.developer, service.serviceId, { login: 'rotating' })
    const count = refreshes()
    for (let n = 0; n < 3; n++) expect((await whoami(world, org.developer, service.slug, n)).errors).toEqual([])
    server.accessTtl = 3600
    const used = server.tokenRequests('refresh_token').slice(count).map(({ body }) => body.get('refresh_token')) // prettier-ignore
    expect(used.length).toBeGreaterThanOrEqual(3)
    expect(new Set(used).size).toBe(used.length)
  })

  it('waits while the server is away, and goes on when it is back', async () => {
    const service = await oauthService(world, org.developer, upstream.url)
    await connectAged(service, 'waiting')
    server.down = true
    // While the old token has seconds left it is used.
    expect((await whoami(world, org.developer, service.slug)).errors).toEqual([])
    const expiresAt = new Date(Date.now() - 1000)
    await world.platform.database.transact(system(), (tx) => tx.oauthConnection.updateMany({ data: { expiresAt } }))
    const away = await whoami(second, org.developer, service.slug)
    server.down = false
    expect(away.code).toBe('UPSTREAM_ERROR')
    expect(await mustReconnect(service.slug)).toBe(false)
    expect((await whoami(world, org.developer, service.slug)).errors).toEqual([])
  })

  it('that is refused ends the connection, says what to do, and asks no more', async () => {
    const service = await oauthService(world, org.developer, upstream.url)
    await connectAged(service, 'ended')
    const { accountId } = { accountId: 'ended' }
    for (const asked of server.tokenRequests('authorization_code').slice(-1))
      expect(asked.body.get('code')).toBeTruthy()
    await revokeGrants(accountId)
    const count = refreshes()
    const refused = await whoami(world, org.developer, service.slug)
    expect(refused.errors[0]).toMatchObject({ extensions: { code: 'SERVICE_UNCONFIGURED', connect: 'connectService' } })
    const key = await createKey(world, org.developer, ['mcp:read', 'mcp:write'])
    await expect(mcpClient(world, org, key, service.slug, 'auto')).rejects.toThrow(/connectService/)
    expect(refreshes() - count).toBe(1)
    expect(await mustReconnect(service.slug)).toBe(true)
    await connectAccount(world, org.developer, service.serviceId, { login: 'ended' })
    expect(await mustReconnect(service.slug)).toBe(false)
    expect((await whoami(world, org.developer, service.slug)).errors).toEqual([])
  })

  it('by a client that the server has forgotten makes a new one at the next connection', async () => {
    const service = await oauthService(world, org.developer, upstream.url)
    await connectAged(service, 'forgotten')
    const { client_id: clientId } = JSON.parse(
      Buffer.from(server.tokenRequests('authorization_code').at(-1)?.headers.authorization?.slice(6) ?? '', 'base64').toString().replace(/^([^:]*):.*$/, '{"client_id":"$1"}'),
    ) as { client_id: string } // prettier-ignore
    await server.clients.destroy(decodeURIComponent(clientId))
    expect((await whoami(world, org.developer, service.slug)).errors[0]).toMatchObject({ extensions: { code: 'SERVICE_UNCONFIGURED', connect: 'connectService' } }) // prettier-ignore
    const count = registrations().length
    await connectAccount(world, org.developer, service.serviceId, { login: 'forgotten' })
    expect(registrations().length - count).toBe(1)
    expect((await whoami(world, org.developer, service.slug)).errors).toEqual([])
  })
})

/** Ends what a user of the authorization server granted, as they would on its own pages. */
async function revokeGrants(accountId: string): Promise<void> {
  for (const { body, path } of [...server.seen]) {
    if (path !== '/token' || !body.get('code')) continue
    const code = await server.provider.AuthorizationCode.find(body.get('code') ?? '', { ignoreExpiration: true })
    if (code?.accountId === accountId && code.grantId) await server.provider.RefreshToken.revokeByGrantId(code.grantId)
  }
}

describe('a connection ends', () => {
  it('when its service moves, together with what was begun', async () => {
    const { serviceId, slug } = await oauthService(world, org.developer, upstream.url)
    await connectAccount(world, org.developer, serviceId, { login: 'moving' })
    const answer = returnedBy(await visit(await begin(world, org.developer, serviceId), { login: 'moving' }))
    const tokens = upstream.tokens.length
    expect((await run(world, 'updateService', { id: serviceId, endpoint: `${upstream.url}?moved` }, org.colleague)).errors).toEqual([]) // prettier-ignore
    expect((await whoami(world, org.developer, slug)).code).toBe('SERVICE_UNCONFIGURED')
    expect((await run(world, 'completeServiceConnection', answer, org.developer)).code).toBe('NOT_FOUND')
    expect(upstream.tokens).toHaveLength(tokens)
  })
})

describe('the page that a browser comes back to', () => {
  it('hands over what was brought and nothing else, to this platform’s own page where there is no frontend', async () => {
    const path = '/oauth/callback/00000000-0000-4000-8000-000000000000?code=c&state=s&error_description=%3Cscript%3E'
    const response = await world.fetch(path)
    expect(response.status).toBe(200)
    expect(response.headers.get('content-security-policy')).toContain("script-src 'self'")
    expect(response.headers.get('cache-control')).toBe('no-store')
    const html = await response.text()
    expect(html).not.toMatch(/error_description|[?&]code=/)
    expect((await world.fetch('/oauth/callback.js')).headers.get('content-type')).toMatch(/^text\/javascript/)
    expect((await world.fetch(path, { method: 'POST' })).status).toBe(405)
    for (const unknown of ['/oauth/callback', '/oauth/callback/x', '/oauth/clients/x.json', '/oauth/'])
      expect((await world.fetch(unknown)).status).toBe(404)
  })

  it('describes the client of any service, whether there is one or not', async () => {
    const id = '00000000-0000-4000-8000-000000000000'
    const response = await world.fetch(`/oauth/clients/${id}.json`)
    expect(response.headers.get('content-type')).toMatch(/^application\/json/)
    expect(await response.json()).toEqual({
      client_id: `${publicUrl}/oauth/clients/${id}.json`,
      client_name: 'MCP Online Platform',
      client_uri: publicUrl,
      redirect_uris: [`${publicUrl}/oauth/callback/${id}`],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      application_type: 'web',
      token_endpoint_auth_method: 'none',
    })
  })
})

describe('canaries', () => {
  it('none of the platform’s credentials, nor another user’s token, has reached an upstream or an authorization server', () => {
    const toUpstream = JSON.stringify(upstream.recorder.seen.map(({ headers, url }) => [headers, url]))
    const toServer = JSON.stringify(server.seen)
    for (const sent of [toUpstream, toServer]) {
      expect(sent).not.toMatch(/mcp_sk_|__Host-refresh|x-api-key/)
      for (const person of [org.admin, org.developer, org.colleague, org.viewer]) {
        expect(sent).not.toContain(person.authorization.slice(7))
        expect(sent).not.toContain(person.email)
      }
    }
    for (const token of new Set(upstream.tokens)) expect(toServer.replaceAll(/"path":"\/token\/revocation.*?\}/g, '')).not.toContain(token) // prettier-ignore
  })

  it('no token, code, verifier or state has been written to the log or the records', async () => {
    const secrets = new Set([
      ...upstream.tokens,
      ...server.seen.flatMap(({ body }) => ['code', 'code_verifier', 'refresh_token', 'client_secret', 'token'].flatMap((name) => body.get(name) ?? [])),
    ]) // prettier-ignore
    expect(secrets.size).toBeGreaterThan(20)
    const { data } = await world.graphql<any>('{ auditTrail(first: 100) { edges { node { action detail target } } } requestLog(first: 100) { edges { node { arguments tool } } } }', {}, org.admin) // prettier-ignore
    const written = JSON.stringify([world.logged, data])
    expect(written.length).toBeGreaterThan(1000)
    for (const secret of secrets) expect(written.includes(secret), secret.slice(0, 4)).toBe(false)
  })
})
