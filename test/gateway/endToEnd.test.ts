import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listen, type Listening } from '../../src/listen.ts'
import { createKey, createService, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'
import { startEverything } from './peers/everything.ts'
import { startRecorder, type Recorder } from './peers/recorder.ts'

/** The whole way: an ordinary MCP client, a real port, a real upstream process, the database. */
let world: World
let org: Organization
let stranger: Organization
let server: Listening
let everything: Awaited<ReturnType<typeof startEverything>>
let recorders: Recorder[]

beforeAll(async () => {
  world = await createWorld({ PORT: '0' })
  org = await seedOrganization(world)
  stranger = await seedOrganization(world)
  server = await listen(world.app, { ...world.platform.config, port: 0 })
  everything = await startEverything()
  recorders = await Promise.all([startRecorder('legacy'), startRecorder('modern')])
  await createService(world, org.admin, { slug: 'everything', endpoint: everything.url })
  for (const { era, url } of recorders)
    await createService(world, org.admin, { slug: era, endpoint: url, credentialMode: 'PERSONAL' })
})
afterAll(async () => {
  await Promise.all([everything.close(), ...recorders.map((recorder) => recorder.close())])
  await server.stop()
  await world.database.drop()
})

async function connect(service: string, authorization: string, mode: 'legacy' | 'auto'): Promise<Client> {
  const client = new Client({ name: 'ordinary-client', version: '1.0.0' }, { versionNegotiation: { mode } })
  const url = new URL(`${server.address}/mcp/${org.slug}/${service}`)
  await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers: { authorization } } }))
  return client
}

const callTool = `mutation ($input: CallToolInput!) { callTool(input: $input) { isError content structuredContent requestId durationMs } }`
const store = `mutation ($input: StoreServiceTokenInput!) { storeServiceToken(input: $input) { slug token { hint } } }`

describe.each(['legacy', 'auto'] as const)('an ordinary client (%s) with an API key', (mode) => {
  it('lists and calls the tools of a real server through the platform', async () => {
    const key = await createKey(world, org.developer, ['mcp:read', 'mcp:write'])
    const client = await connect('everything', key.authorization, mode)
    const { tools } = await client.listTools()
    expect(tools.map(({ name }) => name)).toContain('echo')
    const result = await client.callTool({ name: 'echo', arguments: { message: `hello ${mode}` } })
    expect(JSON.stringify(result.content)).toContain(`hello ${mode}`)
    await client.close()
  })

  it('brings its own service token upstream, and nothing of the platform', async () => {
    for (const recorder of recorders) {
      const { data } = await world.graphql<any>(
        'query ($slug: String!) { service(slug: $slug) { id } }',
        { slug: recorder.era },
        org.developer,
      )
      const token = `upstream-token-of-developer-${mode}`
      const stored = await world.graphql<any>(store, { input: { serviceId: data.service.id, token } }, org.developer)
      expect(stored.errors).toEqual([])
      expect(stored.data.storeServiceToken).toEqual({ slug: recorder.era, token: { hint: token.slice(-4) } })
      const key = await createKey(world, org.developer, ['mcp:read', 'mcp:write'])
      const client = await connect(recorder.era, key.authorization, mode)
      recorder.seen.length = 0
      const result = await client.callTool({ name: 'whoami', arguments: { n: 1 } })
      expect(JSON.stringify(result.content)).toContain(`Bearer ${token}`)
      const arrived = JSON.stringify(recorder.seen.map(({ headers }) => headers))
      expect(arrived).not.toContain('mcp_sk_')
      expect(arrived).not.toContain('eyJ')
      await client.close()
    }
  })
})

describe('GraphQL callTool', () => {
  it('takes the same way, and the admin sees the calls while a stranger sees nothing', async () => {
    const { data } = await world.graphql<any>(callTool, { input: { service: 'everything', tool: 'echo', arguments: { message: 'from GraphQL', password: 'hunter2 hunter2' } } }, org.developer) // prettier-ignore
    expect(data.callTool).toMatchObject({ isError: false })
    expect(JSON.stringify(data.callTool.content)).toContain('from GraphQL')

    const log =
      '{ requestLog(first: 50) { edges { node { service tool status arguments requestId } } } usage(first: 50) { edges { node { service tool calls errors } } } }'
    const admin = await world.graphql<any>(log, {}, org.admin)
    const rows = admin.data.requestLog.edges.map((edge: any) => edge.node)
    expect(rows).toContainEqual({
      service: 'everything',
      tool: 'echo',
      status: 'ok',
      arguments: { message: 'from GraphQL', password: '****' },
      requestId: data.callTool.requestId,
    })
    const calls = rows.filter((row: any) => row.service === 'everything' && row.tool === 'echo').length
    const total = admin.data.usage.edges
      .map((edge: any) => edge.node)
      .find((row: any) => row.service === 'everything' && row.tool === 'echo')
    expect(total).toEqual({ service: 'everything', tool: 'echo', calls, errors: 0 })
    const outside = await world.graphql<any>(log, {}, stranger.admin)
    expect(outside.data).toEqual({ requestLog: { edges: [] }, usage: { edges: [] } })
    const viewer = await world.graphql<any>(log, {}, org.viewer)
    expect(viewer.data.requestLog.edges).toEqual([])
  })

  it('filters the log by service, tool, status, user and time', async () => {
    await world.graphql(callTool, { input: { service: 'everything', tool: 'no-such-tool' } }, org.developer)
    const ask = async (args: string) =>
      (await world.graphql<any>(`{ requestLog(first: 100, ${args}) { edges { node { service tool status userId } } } }`, {}, org.admin)).data.requestLog.edges.map((edge: any) => edge.node) // prettier-ignore
    expect((await ask('service: "legacy"')).every((row: any) => row.service === 'legacy')).toBe(true)
    expect(await ask('status: denied')).toEqual([
      { service: 'everything', tool: 'no-such-tool', status: 'denied', userId: org.developer.userId },
    ])
    expect(await ask(`userId: "${org.admin.userId}"`)).toEqual([])
    expect(await ask('until: "2020-01-01T00:00:00Z"')).toEqual([])
    expect((await ask('from: "2020-01-01T00:00:00Z", tool: "echo"')).length).toBeGreaterThan(0)
  })

  it('says what is missing, and to a stranger the same as for a service that does not exist', async () => {
    const viewer = await world.graphql(callTool, { input: { service: 'legacy', tool: 'whoami' } }, org.viewer)
    expect(viewer.code).toBe('SERVICE_UNCONFIGURED')
    const foreign = await world.graphql(callTool, { input: { service: 'everything', tool: 'echo' } }, stranger.admin)
    const absent = await world.graphql(callTool, { input: { service: 'absent', tool: 'echo' } }, stranger.admin)
    expect([foreign.code, foreign.errors[0]?.message]).toEqual([absent.code, absent.errors[0]?.message])
    expect(foreign.code).toBe('NOT_FOUND')
  })

  it('refuses an address that the operator does not allow', async () => {
    const closed = await createWorld({ UPSTREAM_ALLOWED_CIDRS: '' })
    const inside = await seedOrganization(closed)
    for (const endpoint of [
      'http://127.0.0.1:9/mcp',
      'http://[::1]:9/mcp',
      'http://169.254.169.254/latest',
      'http://2130706433/mcp',
    ]) {
      const slug = `s${endpoint.length}${endpoint.charCodeAt(8)}`
      await createService(closed, inside.admin, { slug, endpoint })
      const { code, errors } = await closed.graphql(callTool, { input: { service: slug, tool: 'x' } }, inside.admin)
      expect(code).toBe('UPSTREAM_ERROR')
      expect(errors.map(({ message }) => message).join()).not.toMatch(/127|169|::1|ECONN/)
    }
    await closed.close()
  })
})

describe('client set-up', () => {
  it.each(['CLAUDE_DESKTOP', 'CLAUDE_CODE', 'CURSOR', 'VSCODE', 'WINDSURF', 'GENERIC'])(
    'is ready to paste for %s',
    async (client) => {
      const { data } = await world.graphql<any>(
        'query ($client: McpClient!) { clientConfiguration(client: $client, service: "everything") { file content command } }',
        { client },
        org.viewer,
      )
      expect(JSON.parse(data.clientConfiguration.content)).toBeTypeOf('object')
      expect(data.clientConfiguration.content).toContain(`/mcp/${org.slug}/everything`)
      expect(data.clientConfiguration.content).not.toMatch(/mcp_sk_[0-9A-Za-z]/)
    },
  )

  it('is in the form of its own for clients that take the key from elsewhere, or have another name for it', async () => {
    const ask = async (client: string, args = 'service: "everything"', as = org.viewer) =>
      (await world.graphql<any>(`{ clientConfiguration(client: ${client}, ${args}) { file content command } }`, {}, as)).data.clientConfiguration // prettier-ignore
    const url = `http://platform.test/mcp/${org.slug}/everything`
    const headers = { Authorization: 'Bearer YOUR_API_KEY' }
    expect(await ask('CODEX')).toEqual({
      file: '~/.codex/config.toml',
      content: `[mcp_servers.everything]\nurl = "${url}"\nbearer_token_env_var = "MCP_API_KEY"\n`,
      command: `codex mcp add everything --url ${url} --bearer-token-env-var MCP_API_KEY`,
    })
    const forms: Record<string, object> = {
      GEMINI_CLI: { mcpServers: { everything: { httpUrl: url, headers } } },
      CLINE: { mcpServers: { everything: { type: 'streamableHttp', url, headers, disabled: false } } },
      ZED: { context_servers: { everything: { url, headers } } },
      OPENCODE: { mcp: { everything: { type: 'remote', url, enabled: true, headers } } },
    }
    for (const [client, form] of Object.entries(forms)) expect(JSON.parse((await ask(client)).content)).toEqual(form)
    const all = JSON.parse((await ask('CURSOR', '', org.viewer)).content)
    expect(all).toEqual({ mcpServers: { [org.slug]: { url: `http://platform.test/mcp/${org.slug}`, headers } } })
    expect(await ask('CURSOR', 'collection: "absent"')).toBeNull()
    expect(await ask('CURSOR', 'service: "everything"', stranger.admin)).toBeNull()
  })

  it('takes over the HTTP entries of a client’s file, without their headers, and names what it leaves', async () => {
    const configuration = {
      mcpServers: {
        'My Search': {
          type: 'http',
          url: 'https://search.example/mcp',
          headers: { Authorization: 'Bearer left-behind-token' },
        },
        everything: { url: 'https://other.example/mcp' },
        local: { command: 'npx', args: ['evil'] },
      },
    }
    const { data } = await world.graphql<any>(
      'mutation ($input: ImportServicesInput!) { importServices(input: $input) { slugs skipped { name reason } } }',
      { input: { configuration } },
      org.developer,
    )
    expect(data.importServices.slugs).toEqual(['my-search'])
    expect(data.importServices.skipped.map(({ name }: any) => name).sort()).toEqual(['everything', 'local'])
    expect(world.logged.join()).not.toContain('left-behind-token')
    const viewer = await world.graphql(
      'mutation ($input: ImportServicesInput!) { importServices(input: $input) { slugs } }',
      { input: { configuration } },
      org.viewer,
    )
    expect(viewer.code).toBe('FORBIDDEN')
  })
})

describe('the MCP door', () => {
  const post = (path: string, headers: Record<string, string>) =>
    world.fetch(path, { method: 'POST', headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', ...headers }, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' }) }) // prettier-ignore

  it('names the scope and the metadata of the resource when it refuses', async () => {
    const response = await post(`/mcp/${org.slug}/everything`, {})
    expect(response.status).toBe(401)
    expect(response.headers.get('www-authenticate')).toBe(
      `Bearer realm="mcp", scope="mcp:read", resource_metadata="http://platform.test/.well-known/oauth-protected-resource/mcp/${org.slug}/everything"`,
    )
    const metadata = await world.fetch(`/.well-known/oauth-protected-resource/mcp/${org.slug}/everything`)
    expect(await metadata.json()).toMatchObject({
      resource: `http://platform.test/mcp/${org.slug}/everything`,
      bearer_methods_supported: ['header'],
    })
  })

  it('does not tell another organisation’s member what exists', async () => {
    const bodies = await Promise.all(
      [`/mcp/${org.slug}/everything`, `/mcp/${org.slug}/absent`, '/mcp/no-such-org/everything'].map(async (path) => {
        const response = await post(path, { authorization: stranger.admin.authorization })
        return [response.status, (await response.text()).replace(/"requestId":"[^"]+"/, '')]
      }),
    )
    expect(new Set(bodies.map((each) => JSON.stringify(each))).size).toBe(1)
    expect(bodies[0]?.[0]).toBe(404)
  })

  it('refuses a body over the limit before it is parsed', async () => {
    const response = await world.fetch(`/mcp/${org.slug}/everything`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: org.admin.authorization },
      body: `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"${'x'.repeat(2 ** 20)}"}}`,
    })
    expect(response.status).toBe(413)
  })

  it('refuses a page of another origin, and a key without mcp:read', async () => {
    const foreign = await post(`/mcp/${org.slug}/everything`, {
      authorization: org.admin.authorization,
      origin: 'https://evil.example',
    })
    expect(foreign.status).toBe(403)
    const key = await createKey(world, org.developer, ['user:read'])
    const response = await post(`/mcp/${org.slug}/everything`, { authorization: key.authorization })
    expect(response.status).toBe(403)
    expect(response.headers.get('www-authenticate')).toContain('error="insufficient_scope", scope="mcp:read"')
  })
})
