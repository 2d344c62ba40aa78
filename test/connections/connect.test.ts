import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createKey, fresh, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'
import { startAuthorizationServer, type AuthorizationServer } from './peers/authorizationServer.ts'
import { connectAccount, mcpClient, oauthService, publicUrl, run, whoami } from './peers/connecting.ts'
import { startProtectedUpstream, type ProtectedUpstream } from './peers/protectedUpstream.ts'

let world: World
let org: Organization
let server: AuthorizationServer
const upstreams = new Map<string, ProtectedUpstream>()
const eras = ['legacy', 'modern'] as const

beforeAll(async () => {
  world = await createWorld({ PUBLIC_URL: publicUrl })
  org = await seedOrganization(world)
  // The authorization server fetches the platform's client document from the platform.
  server = await startAuthorizationServer({ fetch: (path) => world.fetch(path) })
  for (const era of eras) upstreams.set(era, await startProtectedUpstream(era, server))
})
afterAll(async () => {
  await world.close()
  await server.close()
  for (const upstream of upstreams.values()) await upstream.close()
})

const upstreamOf = (era: string): ProtectedUpstream => upstreams.get(era) ?? expect.fail(era)
const textOf = ({ content }: { content?: unknown }): string => (content as { text: string }[])[0]?.text ?? ''
const tokenIn = (text: string): string => /^Bearer (\S+)#/.exec(text)?.[1] ?? ''

describe.each(eras)('an upstream of the %s era', (era) => {
  it('is called with the account that the user connected, through GraphQL and MCP, and by nobody else', async () => {
    const upstream = upstreamOf(era)
    const { serviceId, slug } = await oauthService(world, org.developer, upstream.url)
    const before = await whoami(world, org.developer, slug)
    expect(before.errors[0]).toMatchObject({ extensions: { code: 'SERVICE_UNCONFIGURED', connect: 'connectService' } })

    await connectAccount(world, org.developer, serviceId, { login: 'dev' })
    const { data, errors } = await whoami(world, org.developer, slug)
    expect(errors).toEqual([])
    const token = tokenIn(textOf(data.callTool))
    expect(await server.provider.AccessToken.find(token)).toMatchObject({ accountId: 'dev', aud: upstream.url })

    const key = await createKey(world, org.developer, ['mcp:read', 'mcp:write'])
    for (const mode of ['legacy', 'auto'] as const) {
      const client = await mcpClient(world, org, key, slug, mode)
      expect(tokenIn(textOf(await client.callTool({ name: 'whoami', arguments: { n: 2 } })))).toBe(token)
      await client.close()
    }
    expect((await whoami(world, org.colleague, slug)).code).toBe('SERVICE_UNCONFIGURED')

    await connectAccount(world, org.colleague, serviceId, { login: 'colleague' })
    const other = tokenIn(textOf((await whoami(world, org.colleague, slug)).data.callTool))
    expect(await server.provider.AccessToken.find(other)).toMatchObject({ accountId: 'colleague' })
    expect(tokenIn(textOf((await whoami(world, org.developer, slug)).data.callTool))).toBe(token)
  })

  it('is called with the organisation’s account, which an administrator connected once for all', async () => {
    const { serviceId, slug } = await oauthService(world, org.developer, upstreamOf(era).url, 'SHARED')
    const before = await whoami(world, org.developer, slug)
    expect(before.errors[0]).toMatchObject({ extensions: { code: 'SERVICE_UNCONFIGURED', connect: 'connectSharedService' } }) // prettier-ignore
    await connectAccount(world, await fresh(world, org.admin), serviceId, { login: 'robot', shared: true })
    for (const person of [org.developer, org.colleague, org.admin]) {
      const { data, errors } = await whoami(world, person, slug)
      expect(errors).toEqual([])
      expect(await server.provider.AccessToken.find(tokenIn(textOf(data.callTool)))).toMatchObject({ accountId: 'robot' }) // prettier-ignore
    }
  })

  it('gets a renewed token, by one exchange for many calls, once the old one has run out', async () => {
    const upstream = upstreamOf(era)
    const { serviceId, slug } = await oauthService(world, org.developer, upstream.url)
    server.accessTtl = 5
    await connectAccount(world, org.developer, serviceId, { login: 'aging' })
    server.accessTtl = 3600
    const count = server.tokenRequests('refresh_token').length
    const refused = upstream.refused
    const answers = await Promise.all(Array.from({ length: 25 }, (_, n) => whoami(world, org.developer, slug, n)))
    expect(answers.flatMap(({ errors }) => errors)).toEqual([])
    const tokens = new Set(answers.map(({ data }) => tokenIn(textOf(data.callTool))))
    expect(tokens.size).toBe(1)
    expect(server.tokenRequests('refresh_token').length - count).toBe(1)
    expect(server.tokenRequests('refresh_token').at(-1)?.body.get('resource')).toBe(upstream.url)
    expect(upstream.refused).toBe(refused)
  })

  it('is asked again with a renewed token after it refused the old one, and no more than once', async () => {
    const upstream = upstreamOf(era)
    const { serviceId, slug } = await oauthService(world, org.developer, upstream.url)
    await connectAccount(world, org.developer, serviceId, { login: 'revoked' })
    const first = tokenIn(textOf((await whoami(world, org.developer, slug)).data.callTool))
    await (await server.provider.AccessToken.find(first))?.destroy()
    const count = server.tokenRequests('refresh_token').length
    const answers = await Promise.all(Array.from({ length: 10 }, (_, n) => whoami(world, org.developer, slug, n)))
    expect(answers.flatMap(({ errors }) => errors)).toEqual([])
    expect(server.tokenRequests('refresh_token').length - count).toBe(1)
    expect(tokenIn(textOf(answers[0]?.data.callTool))).not.toBe(first)

    upstream.strict = true
    const refused = await whoami(world, org.developer, slug)
    upstream.strict = false
    expect(refused.errors[0]).toMatchObject({ extensions: { code: 'UPSTREAM_ERROR', upstreamStatus: 401 } })
    expect(server.tokenRequests('refresh_token').length - count).toBe(1)
  })
})

describe('a connection', () => {
  it('shows what it is and never a token, to its owner alone', async () => {
    const { serviceId, slug } = await oauthService(world, org.developer, upstreamOf('modern').url)
    await connectAccount(world, org.developer, serviceId, { login: 'shown' })
    const document = `query ($slug: String!) { service(slug: $slug) { oauthConnection { issuer scope expiresAt mustReconnect createdAt } } }`
    const own = await world.graphql<any>(document, { slug }, org.developer)
    expect(own.errors).toEqual([])
    expect(own.data.service.oauthConnection).toMatchObject({ issuer: server.issuer, scope: 'notes:read', mustReconnect: false }) // prettier-ignore
    expect((await world.graphql<any>(document, { slug }, org.colleague)).data.service.oauthConnection).toBeNull()
    const shared =
      'query ($slug: String!) { service(slug: $slug) { sharedOAuthConnection { issuer } oauthClient { clientId } } }'
    expect((await world.graphql<any>(shared, { slug }, org.developer)).code).toBe('FORBIDDEN')
    expect((await world.graphql<any>(shared, { slug }, org.admin)).data.service).toEqual({ sharedOAuthConnection: null, oauthClient: null }) // prettier-ignore
  })

  it('costs a list of services one statement more for each kind, however long it is', async () => {
    for (let i = 0; i < 3; i++) await oauthService(world, org.developer, upstreamOf('modern').url)
    const list = (fields: string) => `{ services(first: 50) { edges { node { slug ${fields} } } } }`
    const own = await world.graphql(list('oauthConnection { issuer }'), {}, org.developer)
    const all = await world.graphql(list('oauthConnection { issuer } sharedOAuthConnection { issuer } oauthClient { clientId }'), {}, org.admin) // prettier-ignore
    expect([own.errors, all.errors]).toEqual([[], []])
    expect([own.extensions.statements, all.extensions.statements]).toEqual([2, 4])
  })

  it('is forgotten and revoked by its owner', async () => {
    const { serviceId, slug } = await oauthService(world, org.developer, upstreamOf('modern').url)
    await connectAccount(world, org.developer, serviceId, { login: 'leaving' })
    const token = tokenIn(textOf((await whoami(world, org.developer, slug)).data.callTool))
    expect((await run(world, 'disconnectService', { serviceId }, org.colleague)).code).toBe('NOT_FOUND')
    expect((await run(world, 'disconnectService', { serviceId }, org.developer)).errors).toEqual([])
    expect(await server.provider.AccessToken.find(token)).toBeUndefined()
    expect((await whoami(world, org.developer, slug)).code).toBe('SERVICE_UNCONFIGURED')
    expect((await run(world, 'disconnectService', { serviceId }, org.developer)).code).toBe('NOT_FOUND')
  })
})
