import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listen, type Listening } from '../../src/listen.ts'
import { createKey, createService, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'
import { startEverything } from './peers/everything.ts'
import { listen as listenTo, type Peer } from './peers/http.ts'
import { startRecorder, type Recorder } from './peers/recorder.ts'

/** All services of an organisation under one address, by ordinary clients over a real port. */
let world: World
let org: Organization
let stranger: Organization
/** Where one service is dead and one never answers. */
let unwell: Organization
let server: Listening
let everything: Awaited<ReturnType<typeof startEverything>>
let recorders: Recorder[]
let silent: Peer
const ids = new Map<string, string>()
const modes = ['legacy', 'auto'] as const

beforeAll(async () => {
  world = await createWorld({ PORT: '0', UPSTREAM_TIMEOUT_SECONDS: '5' })
  org = await seedOrganization(world)
  stranger = await seedOrganization(world)
  unwell = await seedOrganization(world)
  server = await listen(world.app, { ...world.platform.config, port: 0 })
  everything = await startEverything()
  recorders = await Promise.all([startRecorder('legacy'), startRecorder('modern')])
  // Names that could be taken for those of another service.
  recorders[1]?.extra.add('legacy__whoami')
  silent = await listenTo(() => undefined)
  const healthy: [string, string, string][] = [
    ['modern', recorders[1]?.url ?? '', 'PERSONAL'],
    ['everything', everything.url, 'NONE'],
    ['legacy', recorders[0]?.url ?? '', 'PERSONAL'],
  ]
  for (const [slug, endpoint, credentialMode] of healthy)
    ids.set(slug, await createService(world, org.admin, { slug, endpoint, credentialMode }))
  const mixed = [
    ['silent', silent.url],
    ['everything', everything.url],
    ['dead', 'http://127.0.0.1:9/mcp'],
  ] as const
  for (const [slug, endpoint] of mixed) await createService(world, unwell.admin, { slug, endpoint })
  for (const slug of ['legacy', 'modern'])
    await mutate('storeServiceToken', 'StoreServiceTokenInput', { serviceId: ids.get(slug), token: `token-of-developer-at-${slug}` }, org.developer) // prettier-ignore
}, 180_000)
afterAll(async () => {
  await Promise.all([everything.close(), silent.close(), ...recorders.map((recorder) => recorder.close())])
  await server.stop()
  await world.database.drop()
})

const mutate = async (name: string, type: string, input: object, as: { authorization: string }) =>
  world.graphql<any>(`mutation ($input: ${type}!) { ${name}(input: $input) { __typename } }`, { input }, as)

async function connect(path: string, authorization: string, mode: 'legacy' | 'auto'): Promise<Client> {
  const client = new Client({ name: 'ordinary-client', version: '1.0.0' }, { versionNegotiation: { mode } })
  await client.connect(
    new StreamableHTTPClientTransport(new URL(`${server.address}${path}`), {
      requestInit: { headers: { authorization } },
    }),
  )
  return client
}

const post = (path: string, authorization: string, body: object, headers: Record<string, string> = {}) =>
  world.fetch(path, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      authorization,
      ...headers,
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, ...body }),
  })
const refusal = async (client: Client, name: string): Promise<string> =>
  client.callTool({ name, arguments: { n: 1 } }).then(
    () => 'called',
    (error: unknown) => JSON.stringify({ ...(error as object), text: String(error) }).replaceAll(name, 'NAME'),
  )

type Named = { service: string; code: string }
const missing = (meta: unknown): Named[] =>
  ((meta as Record<string, unknown> | undefined)?.['mcp-online-platform/unavailable'] ?? []) as Named[]

describe.each(modes)('all services under one address, to an ordinary client (%s)', (mode) => {
  const path = () => `/mcp/${org.slug}`

  it('lists the tools prefixed and in order, the same each time', async () => {
    const client = await connect(path(), org.developer.authorization, mode)
    const names = (await client.listTools()).tools.map(({ name }) => name)
    expect(names).toEqual(expect.arrayContaining(['everything__echo', 'legacy__whoami', 'modern__whoami', 'modern__legacy__whoami'])) // prettier-ignore
    const places = names.map((name) => name.split('__')[0])
    expect(places).toEqual([...places].sort())
    for (const place of new Set(places)) {
      const own = names.filter((name) => name.startsWith(`${place}__`))
      expect(own).toEqual([...own].sort())
    }
    expect(new Set(names).size).toBe(names.length)
    expect((await client.listTools()).tools.map(({ name }) => name)).toEqual(names)
    await client.close()
  })

  it('calls the tool that is meant, with the credential for that service alone, and records it there', async () => {
    const client = await connect(path(), org.developer.authorization, mode)
    for (const recorder of recorders) recorder.seen.length = 0
    for (const slug of ['legacy', 'modern']) {
      const result = await client.callTool({ name: `${slug}__whoami`, arguments: { n: 7 } })
      expect(result.content).toEqual([{ type: 'text', text: `Bearer token-of-developer-at-${slug}#7` }])
    }
    expect((await client.callTool({ name: 'modern__legacy__whoami', arguments: {} })).content).toEqual([])
    for (const [i, slug] of ['legacy', 'modern'].entries()) {
      const other = slug === 'legacy' ? 'modern' : 'legacy'
      expect(JSON.stringify(recorders[i]?.seen)).not.toContain(`token-of-developer-at-${other}`)
    }
    const { data } = await world.graphql<any>('{ requestLog(first: 3) { edges { node { service tool status } } } }', {}, org.developer) // prettier-ignore
    expect(data.requestLog.edges.map(({ node }: any) => node)).toEqual([
      { service: 'modern', tool: 'legacy__whoami', status: 'ok' },
      { service: 'modern', tool: 'whoami', status: 'ok' },
      { service: 'legacy', tool: 'whoami', status: 'ok' },
    ])
    await client.close()
  })

  it('passes resources, templates, prompts and completion on under names of their own', async () => {
    const client = await connect(path(), org.developer.authorization, mode)
    const { resources } = await client.listResources()
    const clocks = resources.filter(({ uri }) => uri.endsWith('+test://clock')).map(({ uri }) => uri)
    expect(clocks).toEqual(['mcp.legacy+test://clock', 'mcp.modern+test://clock'])
    const read = await client.readResource({ uri: 'mcp.legacy+test://clock' })
    expect(read.contents).toEqual([{ uri: 'mcp.legacy+test://clock', text: 'tick' }])
    const { resourceTemplates } = await client.listResourceTemplates()
    expect(resourceTemplates.every(({ uriTemplate }) => uriTemplate.startsWith('mcp.everything+'))).toBe(true)
    expect(resourceTemplates.length).toBeGreaterThan(0)
    const { prompts } = await client.listPrompts()
    expect(prompts.map(({ name }) => name)).toContain('everything__simple-prompt')
    const prompt = await client.getPrompt({ name: 'everything__simple-prompt' })
    expect(prompt.messages.length).toBeGreaterThan(0)
    const completion = await client.complete({
      ref: { type: 'ref/prompt', name: 'everything__completable-prompt' },
      argument: { name: 'department', value: '' },
    })
    expect(completion.completion.values.length).toBeGreaterThan(0)
    const linked = await client.callTool({ name: 'everything__get-resource-links', arguments: { count: 1 } })
    const link = (linked.content as { type: string; uri?: string }[]).find(({ type }) => type === 'resource_link')
    expect(link?.uri).toMatch(/^mcp\.everything\+/)
    expect((await client.readResource({ uri: link?.uri ?? '' })).contents[0]?.uri).toBe(link?.uri)
    for (const uri of ['test://clock', 'mcp.absent+test://clock', 'mcp.+test://clock', 'mcp.legacy'])
      await expect(client.readResource({ uri })).rejects.toMatchObject({ code: -32602 })
    await client.close()
  })

  it('shows a reader what a call then reaches, and says the same of what is absent, blocked or another’s', async () => {
    const client = await connect(path(), org.viewer.authorization, mode)
    expect((await client.listTools()).tools).toEqual([])
    const absent = await refusal(client, 'everything__no-such-tool')
    for (const name of [
      'everything__echo',
      'absent__echo',
      'echo',
      '__proto__',
      'constructor__x',
      'everything__',
      '__echo',
      'Everything__echo',
      'everything__echo ',
    ])
      // prettier-ignore
      expect(await refusal(client, name), name).toBe(absent)
    await client.close()
  })

  it('is, to a key for one service, that service alone', async () => {
    const { data } = await world.graphql<any>(
      'mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret } }',
      { input: { name: 'one', scopes: ['mcp:read', 'mcp:write'], allowedServices: [ids.get('everything')] } },
      org.developer,
    )
    const client = await connect(path(), `Bearer ${data.createApiKey.secret}`, mode)
    const { tools, _meta } = await client.listTools()
    expect(new Set(tools.map(({ name }) => name.split('__')[0]))).toEqual(new Set(['everything']))
    expect(missing(_meta)).toEqual([])
    expect(await refusal(client, 'modern__whoami')).toBe(await refusal(client, 'absent__whoami'))
    await client.close()
  })

  it('tells that a list has changed at one of them', async () => {
    const heard: string[] = []
    const client = new Client({ name: 'listener', version: '1.0.0' }, { versionNegotiation: { mode } })
    client.setNotificationHandler('notifications/tools/list_changed', () => void heard.push('tools'))
    const transport = new StreamableHTTPClientTransport(new URL(`${server.address}${path()}`), {
      requestInit: { headers: { authorization: org.developer.authorization } },
    })
    await client.connect(transport)
    if (client.getProtocolEra() === 'modern') await client.listen({ toolsListChanged: true })
    await expect
      .poll(
        () => {
          for (const recorder of recorders) recorder.toolsChanged()
          return heard.length
        },
        { timeout: 5000, interval: 100 },
      )
      .toBeGreaterThan(0)
    await client.close()
  })
})

describe('a gathering some of whose services are not well', () => {
  it('answers for those that are well and names those that are not, in time', async () => {
    const client = await connect(`/mcp/${unwell.slug}`, unwell.developer.authorization, 'auto')
    expect(client.getInstructions()).toContain('dead is not available')
    const { tools, _meta } = await client.listTools()
    expect(new Set(tools.map(({ name }) => name.split('__')[0]))).toEqual(new Set(['everything']))
    expect(missing(_meta).map(({ service, code }) => [service, code])).toEqual([
      ['dead', 'UPSTREAM_ERROR'],
      ['silent', 'UPSTREAM_TIMEOUT'],
    ])
    const [dead, well] = await Promise.all([
      client.callTool({ name: 'dead__anything', arguments: {} }).catch((error: unknown) => error),
      client.callTool({ name: 'everything__echo', arguments: { message: 'still here' } }),
    ])
    expect(dead).toMatchObject({ code: -32603, data: { code: 'UPSTREAM_ERROR' } })
    expect(JSON.stringify(well.content)).toContain('still here')
    await client.close()
  })
})

describe('a collection', () => {
  const publish = (input: object, as: { authorization: string }) => mutate('publishCollection', 'PublishCollectionInput', input, as) // prettier-ignore
  const chosen = () => ({
    slug: 'daily',
    name: 'Daily work',
    tools: [
      { serviceId: ids.get('everything'), tool: 'echo' },
      { serviceId: ids.get('everything'), tool: 'get-sum' },
      { serviceId: ids.get('modern'), tool: 'whoami' },
    ],
  })

  it('is published by an administrator with a fresh second factor alone, of services of their own', async () => {
    expect((await publish(chosen(), org.developer)).code).toBe('FORBIDDEN')
    expect((await publish(chosen(), org.adminWithoutMfa)).code).toBe('MFA_REQUIRED')
    expect((await publish(chosen(), stranger.admin)).code).toBe('NOT_FOUND')
    expect((await publish({ ...chosen(), slug: '../x' }, org.admin)).code).toBe('BAD_USER_INPUT')
    expect((await publish({ ...chosen(), tools: [] }, org.admin)).code).toBe('BAD_USER_INPUT')
    expect((await publish(chosen(), org.admin)).errors).toEqual([])
    expect((await publish(chosen(), org.admin)).errors).toEqual([])
  })

  it.each(modes)('holds what it chose and the policy permits, listed and called alike (%s)', async (mode) => {
    const path = `/mcp/${org.slug}/collections/daily`
    const client = await connect(path, org.developer.authorization, mode)
    const { tools } = await client.listTools()
    expect(tools.map(({ name }) => name)).toEqual(['everything__echo', 'everything__get-sum', 'modern__whoami'])
    const echoed = await client.callTool({ name: 'everything__echo', arguments: { message: 'chosen' } })
    expect(JSON.stringify(echoed.content)).toContain('chosen')
    const absent = await refusal(client, 'everything__no-such-tool')
    for (const name of ['everything__get-env', 'legacy__whoami', 'modern__write', 'absent__x'])
      expect(await refusal(client, name), name).toBe(absent)
    expect(client.getServerCapabilities()).not.toHaveProperty('resources')
    await client.close()
    const viewer = await connect(path, org.viewer.authorization, mode)
    expect((await viewer.listTools()).tools).toEqual([])
    expect(await refusal(viewer, 'everything__echo')).toBe(absent)
    await viewer.close()
  })

  it('follows a tool that is blocked, is read by members and nobody else, and is gone when withdrawn', async () => {
    const block = { serviceId: ids.get('everything'), tool: 'echo', access: 'BLOCKED' }
    await mutate('setToolAccess', 'SetToolAccessInput', block, org.admin)
    const path = `/mcp/${org.slug}/collections/daily`
    const client = await connect(path, org.developer.authorization, 'auto')
    expect((await client.listTools()).tools.map(({ name }) => name)).not.toContain('everything__echo')
    expect(await refusal(client, 'everything__echo')).toBe(await refusal(client, 'everything__absent'))
    await client.close()
    await mutate('setToolAccess', 'SetToolAccessInput', { ...block, access: null }, org.admin)

    const query = '{ collections(first: 10) { edges { node { id slug tools { tool service { slug } } } } } }'
    const { data } = await world.graphql<any>(query, {}, org.viewer)
    const [{ node }] = data.collections.edges
    expect(node).toMatchObject({ slug: 'daily' })
    expect(node.tools).toContainEqual({ tool: 'whoami', service: { slug: 'modern' } })
    expect((await world.graphql<any>(query, {}, stranger.admin)).data.collections.edges).toEqual([])
    const withdraw = (as: { authorization: string }) => mutate('withdrawCollection', 'WithdrawCollectionInput', { id: node.id }, as) // prettier-ignore
    expect((await withdraw(org.developer)).code).toBe('FORBIDDEN')
    expect((await withdraw(stranger.admin)).code).toBe('NOT_FOUND')
    expect((await withdraw(org.admin)).errors).toEqual([])
    const ping = { method: 'ping' }
    const gone = await post(path, org.developer.authorization, ping)
    const never = await post(`/mcp/${org.slug}/collections/never`, org.developer.authorization, ping)
    expect([gone.status, never.status]).toEqual([404, 404])
  })
})

describe('the doors of gatherings', () => {
  const paths = () => [`/mcp/${org.slug}`, `/mcp/${org.slug}/collections/daily`]

  it('name the scope and their own metadata to a stranger, and are not there for another organisation', async () => {
    for (const path of paths()) {
      const nobody = await world.fetch(path, { method: 'POST', body: '{}' })
      expect(nobody.status).toBe(401)
      expect(nobody.headers.get('www-authenticate')).toContain(
        `scope="mcp:read", resource_metadata="http://platform.test/.well-known/oauth-protected-resource${path}"`,
      )
      const metadata = await world.fetch(`/.well-known/oauth-protected-resource${path}`)
      expect(await metadata.json()).toMatchObject({ resource: `http://platform.test${path}` })
      const foreign = await post(path, stranger.admin.authorization, { method: 'ping' })
      const absent = await post('/mcp/never-was', stranger.admin.authorization, { method: 'ping' })
      const text = async (response: Response) => (await response.text()).replace(/"requestId":"[^"]+"/, '')
      expect([foreign.status, await text(foreign)]).toEqual([404, await text(absent)])
      const key = await createKey(world, org.developer, ['user:read'])
      const scopeless = await post(path, key.authorization, { method: 'ping' })
      expect(scopeless.status).toBe(403)
      expect(scopeless.headers.get('www-authenticate')).toContain('error="insufficient_scope", scope="mcp:read"')
    }
  })
})
