import { stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listen, type Listening } from '../../src/listen.ts'
import { processTable } from '../../src/modules/gateway/hostedFamily.ts'
import { createKey, seedOrganization, type Organization, type Person } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'
import { writeCatalogue, type CatalogueFile } from './peers/catalogue.ts'

const eras = ['legacy', 'auto'] as const
const canary = 'canary-of-the-platform'

let catalogue: CatalogueFile
let world: World
let org: Organization
let server: Listening
let keys: Map<Person, string>
const open: Client[] = []

const enable = `mutation ($input: EnableHostedServiceInput!) { enableHostedService(input: $input) { id slug hosted endpoint } }`
const call = `mutation ($input: CallToolInput!) { callTool(input: $input) { isError content } }`
const store = `mutation ($input: StoreServiceTokenInput!) { storeServiceToken(input: $input) { slug } }`

beforeAll(async () => {
  process.env['CANARY'] = canary
  catalogue = await writeCatalogue()
  await writeFile(join(catalogue.folder, 'hello.txt'), 'hello from a file')
  world = await createWorld({ CATALOGUE_FILE: catalogue.path, PORT: '0', UPSTREAM_ALLOWED_CIDRS: '' })
  org = await seedOrganization(world)
  server = await listen(world.app, { ...world.platform.config, port: 0 })
  const ids = new Map<string, string>()
  for (const hosted of Object.keys(world.platform.config.catalogue?.services ?? {})) {
    const { data, errors } = await world.graphql<any>(enable, { input: { hosted } }, org.admin)
    expect(errors).toEqual([])
    ids.set(hosted, data.enableHostedService.id)
  }
  keys = new Map()
  for (const person of [org.developer, org.colleague]) {
    keys.set(person, (await createKey(world, person, ['mcp:read', 'mcp:write'])).authorization)
    for (const slug of ['modern', 'legacy'])
      await world.graphql(store, { input: { serviceId: ids.get(slug), token: `token-of-${person.userId}` } }, person)
  }
})
afterAll(async () => {
  delete process.env['CANARY']
  for (const client of open) await client.close()
  await server.stop()
  expect(await hostedProcesses()).toEqual([])
  await world.database.drop()
  await catalogue.remove()
})

/** Every process that descends from this one and was started through the launcher. */
async function hostedProcesses(): Promise<number[]> {
  const table = await processTable()
  const leaders = table.filter(({ parent, pid, session }) => parent === process.pid && session === pid)
  return leaders.map(({ pid }) => pid)
}

const alive = async (pids: readonly number[]): Promise<number[]> => {
  const table = await processTable()
  return pids.filter((pid) => table.some((row) => row.pid === pid))
}

async function connect(service: string, as: Person, mode: (typeof eras)[number], prepare = (_: Client): void => undefined) {
  const client = new Client(
    { name: 'ordinary-client', version: '1.0.0' },
    { versionNegotiation: { mode }, capabilities: { elicitation: {}, roots: {} } },
  )
  prepare(client)
  const requestInit = { headers: { authorization: keys.get(as) ?? '' } }
  await client.connect(
    new StreamableHTTPClientTransport(new URL(`${server.address}/mcp/${org.slug}/${service}`), { requestInit }),
  )
  open.push(client)
  return client
} // prettier-ignore

const textOf = (result: { content?: unknown }): string =>
  (result.content as { text?: string }[] | undefined)?.map(({ text }) => text).join() ?? ''

/** A tool without arguments, called by GraphQL. */
async function tool(service: string, name: string, as: Person, values: object = {}): Promise<{ text: string; code: string | undefined; errors: unknown }> {
  const { data, code, errors } = await world.graphql<any>(call, { input: { service, tool: name, arguments: values } }, as)
  return { text: data?.callTool ? textOf(data.callTool) : '', code, errors }
} // prettier-ignore

type Self = { pid: number; cwd: string; argv: string[]; env: Record<string, string> }
const self = async (service: string, as: Person): Promise<Self> =>
  JSON.parse((await tool(service, 'self', as)).text) as Self

describe.each(eras)('a real stdio server, for a client that negotiates %s', (mode) => {
  it('serves files, and only those of the folder that the operator named', async () => {
    let asked = 0
    const client = await connect('filesystem', org.developer, mode, (each) =>
      each.setRequestHandler('roots/list', () => (asked++, { roots: [{ uri: 'file:///', name: 'everything' }] })),
    )
    expect(client.getServerVersion()?.name).toBe('secure-filesystem-server')
    const { tools } = await client.listTools()
    expect(tools.map(({ name }) => name)).toEqual(expect.arrayContaining(['read_text_file', 'write_file']))
    const read = (path: string) => client.callTool({ name: 'read_text_file', arguments: { path } })
    expect(textOf(await read(join(catalogue.folder, 'hello.txt')))).toBe('hello from a file')
    const forbidden = await read('/etc/hostname')
    expect([forbidden.isError, textOf(forbidden)]).toEqual([true, expect.stringContaining('Access denied')])
    expect(asked).toBe(0)
  })

  it('remembers what it was told while it runs, and each user their own', async () => {
    const create = { entities: [{ name: `${mode}`, entityType: 'mode', observations: ['seen'] }] }
    const client = await connect('memory', org.developer, mode)
    await client.callTool({ name: 'create_entities', arguments: create })
    expect(textOf(await client.callTool({ name: 'read_graph', arguments: {} }))).toContain(`"${mode}"`)
    const other = await connect('memory', org.colleague, mode)
    expect(textOf(await other.callTool({ name: 'read_graph', arguments: {} }))).not.toContain(`"${mode}"`)
    expect((await tool('memory', 'read_graph', org.developer)).text).toContain(`"${mode}"`)
  })
})

describe.each(['modern', 'legacy'])('a stdio server of the %s era', (service) => {
  it('gets its environment from the catalogue, and nothing of the platform', async () => {
    const { env, cwd, argv } = await self(service, org.developer)
    const { PATH, HOME, TMPDIR, LANG, TOKEN, ERA, ...rest } = env
    expect(TOKEN).toBe(`token-of-${org.developer.userId}`)
    expect(ERA).toBe(service === 'legacy' ? 'legacy' : undefined)
    expect([HOME, TMPDIR, LANG]).toEqual([cwd, cwd, 'C.UTF-8'])
    expect(PATH).not.toContain('node_modules')
    // The shell's own; it is not the platform's working directory.
    expect(Object.keys(rest).filter((name) => !['PWD', 'OLDPWD', 'SHLVL', '_'].includes(name))).toEqual([])
    expect(JSON.stringify(env)).not.toContain(canary)
    expect(argv).toEqual([org.developer.userId])
    expect(world.logged.join()).toContain('my credential is ****')
    expect(world.logged.join()).not.toContain(`token-of-${org.developer.userId}`)
  })

  it('is one process for each user, whatever the client and the door', async () => {
    const clients = await Promise.all(eras.map((mode) => connect(service, org.developer, mode)))
    const pids = new Set<number>()
    for (const client of clients)
      pids.add((JSON.parse(textOf(await client.callTool({ name: 'self', arguments: {} }))) as Self).pid)
    const own = await self(service, org.developer)
    pids.add(own.pid)
    expect(pids.size).toBe(1)
    const other = await self(service, org.colleague)
    expect(other.pid).not.toBe(own.pid)
    expect(other.cwd).not.toBe(own.cwd)
    expect(other.env['TOKEN']).toBe(`token-of-${org.colleague.userId}`)
  })

  it('keeps many calls of two users and both eras apart', async () => {
    const clients = await Promise.all(
      [org.developer, org.colleague].flatMap((person) => eras.map((mode) => connect(service, person, mode))),
    )
    const answers = await Promise.all(
      Array.from({ length: 24 }, async (_, n) =>
        textOf((await clients[n % clients.length]?.callTool({ name: 'echo', arguments: { n, ms: n % 7 } })) ?? {}),
      ),
    )
    expect(answers).toEqual(Array.from({ length: 24 }, (_, n) => `${n}`))
  })

  it.each(eras)('streams progress, asks and hears of changes, for a client that negotiates %s', async (mode) => {
    let changes = 0
    const client = await connect(service, org.developer, mode, (each) => {
      each.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: { dish: 'soup' } }))
      each.setNotificationHandler('notifications/tools/list_changed', () => void changes++)
    })
    const steps: number[] = []
    const onprogress = ({ progress }: { progress: number }): void => void steps.push(progress)
    const [first, second] = await Promise.all([
      client.callTool({ name: 'progress', arguments: { n: 1 } }, { onprogress }),
      client.callTool({ name: 'progress', arguments: { n: 10 } }, { onprogress }),
    ])
    expect([textOf(first), textOf(second)]).toEqual(['1 done', '10 done'])
    expect(steps.sort((a, b) => a - b)).toEqual([1, 2, 3, 10, 20, 30])
    expect(textOf(await client.callTool({ name: 'order', arguments: {} }))).toBe('one soup')
    if (mode === 'legacy') {
      await client.callTool({ name: 'grow', arguments: {} })
      await expect.poll(() => changes).toBeGreaterThan(0)
    }
    await tool(service, 'crash', org.developer)
    await expect.poll(async () => (await tool(service, 'echo', org.developer, { n: 5 })).text, { timeout: 5000 }).toBe('5') // prettier-ignore
  })

  it('stops a call that its client gives up, and goes on', async () => {
    const client = await connect(service, org.colleague, 'auto')
    const before = await self(service, org.colleague)
    await expect(
      client.callTool({ name: 'echo', arguments: { n: 1, ms: 20_000 } }, { signal: AbortSignal.timeout(100) }),
    ).rejects.toThrow()
    expect(textOf(await client.callTool({ name: 'echo', arguments: { n: 2 } }))).toBe('2')
    expect((await self(service, org.colleague)).pid).toBe(before.pid)
  })
})

describe('the limits of a hosted service', () => {
  it.each([
    ['memory', 'hog'],
    ['output', 'flood'],
  ])('end a process that takes too much %s, tell its caller at once, and leave others alone', async (_, what) => {
    const { pid } = await self('hungry', org.developer)
    const other = await self('hungry', org.colleague)
    const { code } = await tool('hungry', what, org.developer)
    expect(code).toBe('UPSTREAM_ERROR')
    await expect.poll(() => alive([pid])).toEqual([])
    expect((await self('hungry', org.colleague)).pid).toBe(other.pid)
    await expect.poll(async () => (await tool('hungry', 'echo', org.developer, { n: 1 })).text, { timeout: 5000 }).toBe('1') // prettier-ignore
  })

  it('make a service that keeps ending wait longer each time, and say for how long', async () => {
    const waits: number[] = []
    for (let n = 0; n < 2; n++) {
      expect((await tool('brief', 'crash', org.developer)).code).toBe('UPSTREAM_ERROR')
      const refused = await tool('brief', 'echo', org.developer, { n })
      expect(refused).toMatchObject({ code: 'UPSTREAM_ERROR', text: '' })
      expect(JSON.stringify(refused.errors)).toContain('started again in a moment')
      waits.push(
        (refused.errors as { extensions: { retryAfterSeconds: number } }[])[0]?.extensions.retryAfterSeconds ?? 0,
      )
      await expect.poll(async () => (await tool('brief', 'echo', org.developer, { n })).text, { timeout: 10_000 }).toBe(`${n}`) // prettier-ignore
    }
    expect(waits[1]).toBeGreaterThan(waits[0] ?? Infinity)
    expect(waits[0]).toBeGreaterThan(0)
  })

  it('stop what nobody uses, and what has lived long enough, with the folder', async () => {
    const idle = await self('brief', org.colleague)
    await expect.poll(() => alive([idle.pid]), { timeout: 5000 }).toEqual([])
    await expect.poll(() => stat(idle.cwd).then(() => 'there', () => 'gone')).toBe('gone') // prettier-ignore
    const busy = await self('brief', org.colleague)
    expect(busy.pid).not.toBe(idle.pid)
    const late = await tool('brief', 'echo', org.colleague, { n: 1, ms: 20_000 })
    expect(late.code).toBe('UPSTREAM_ERROR')
    expect((await tool('brief', 'echo', org.colleague, { n: 2 })).text).toBe('2')
  })

  it('say that what cannot be started cannot be used', async () => {
    expect((await tool('absent', 'echo', org.developer)).code).toBe('UPSTREAM_ERROR')
  })
})

describe('who may have what run', () => {
  it('is the administrator’s choice, with a fresh second factor, from the operator’s list', async () => {
    const input = { hosted: 'memory', slug: 'memory-again' }
    const key = await createKey(world, org.developer, ['mcp:read', 'mcp:write'])
    for (const [as, code] of [
      [{}, 'UNAUTHENTICATED'],
      [org.viewer, 'FORBIDDEN'],
      [org.developer, 'FORBIDDEN'],
      [org.adminWithoutMfa, 'MFA_REQUIRED'],
      [key, 'PERSISTED_QUERY_REQUIRED'],
    ] as const)
      expect((await world.graphql(enable, { input }, as)).code).toBe(code)
    for (const hosted of ['nothing', '../memory', '__proto__', 'constructor'])
      expect((await world.graphql(enable, { input: { hosted, slug: 'x' } }, org.admin)).code).toBe('BAD_USER_INPUT')
    const wrongMode = { hosted: 'memory', slug: 'x', credentialMode: 'SHARED' }
    expect((await world.graphql(enable, { input: wrongMode }, org.admin)).code).toBe('BAD_USER_INPUT')
  })

  it('tells administrators what there is, and nobody how it is run', async () => {
    const list = '{ hostedServices { name title description needsCredential } }'
    const { data } = await world.graphql<any>(list, {}, org.admin)
    expect(data.hostedServices).toContainEqual({ name: 'modern', title: 'Modern', description: '', needsCredential: true }) // prettier-ignore
    expect(JSON.stringify(data)).not.toMatch(/node|stdioServer|index\.js/)
    expect((await world.graphql(list, {}, org.developer)).code).toBe('FORBIDDEN')
  })

  it('takes no command and no other address through the API', async () => {
    const add = 'mutation ($input: CreateServiceInput!) { createService(input: $input) { id } }'
    const change = 'mutation ($input: UpdateServiceInput!) { updateService(input: $input) { id } }'
    for (const endpoint of ['hosted:memory', 'stdio:memory', 'file:///bin/sh'])
      expect((await world.graphql(add, { input: { slug: 'e', name: 'e', endpoint } }, org.admin)).code).toBe('BAD_USER_INPUT') // prettier-ignore
    for (const extra of [{ hosted: 'memory' }, { command: 'sh' }])
      expect((await world.graphql(add, { input: { slug: 'e', name: 'e', endpoint: 'https://a.example', ...extra } }, org.admin)).code).toBe('BAD_USER_INPUT') // prettier-ignore
    const { data } = await world.graphql<any>('{ service(slug: "memory") { id hosted endpoint } }', {}, org.developer)
    expect(data.service).toMatchObject({ hosted: 'memory', endpoint: 'hosted:memory' })
    const moved = { id: data.service.id, endpoint: 'https://a.example' }
    expect((await world.graphql(change, { input: moved }, org.admin)).code).toBe('BAD_USER_INPUT')
  })
})
