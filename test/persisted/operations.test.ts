import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { extendSchema, parse } from 'graphql'
import { provideSchema } from '../../src/graphql/registry.ts'
import { buildSchema } from '../../src/schema.ts'
import { pushDocumentId } from '../../src/modules/persisted/builtIn.ts'
import { system } from '../../src/kernel/actor.ts'
import { checkPersistedOperations } from '../../src/modules/persisted/check.ts'
import { readManifest } from '../../src/modules/persisted/manifest.ts'
import { pushOperations } from '../../src/pushOperations.ts'
import { listen, type Listening } from '../../src/listen.ts'
import { createKey, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

let world: World
let org: Organization
let server: Listening
let folder: string
beforeAll(async () => {
  world = await createWorld()
  org = await seedOrganization(world)
  server = await listen(world.app, { ...world.platform.config, port: 0 })
  folder = await mkdtemp(join(tmpdir(), 'mcp-manifest-'))
})
afterAll(async () => {
  await server.stop()
  await world.database.drop()
  await rm(folder, { recursive: true, force: true })
})

const viewerName = 'query ViewerName { viewer { name } }'
const serviceList = 'query Services($n: Int) { services(first: $n) { edges { node { slug endpoint } } } }'
const md5 = (text: string): string => createHash('md5').update(text).digest('hex')
const sha1 = (text: string): string => createHash('sha1').update(text).digest('hex')

const manifests: Record<string, Record<string, unknown> & { operations?: { id: string; [key: string]: unknown }[] }> = {
  'graphql-codegen': { [sha1(viewerName)]: viewerName },
  Relay: { [md5(serviceList)]: serviceList },
  Apollo: {
    format: 'apollo-persisted-query-manifest',
    version: 1,
    operations: [{ id: `v1-${sha1(serviceList)}`, name: 'Services', type: 'query', body: `${serviceList} ` }],
  },
}

async function push(manifest: unknown, key: string): Promise<{ stdout: string; stderr: string; code: number }> {
  const path = join(folder, 'manifest.json')
  await writeFile(path, JSON.stringify(manifest))
  const env = { ...process.env, MCP_API_KEY: key }
  return run(process.execPath, ['bin/mcp-platform.js', 'operations', 'push', path, '--url', server.address], {
    cwd: root,
    env,
  }).then(
    (done) => ({ ...done, code: 0 }),
    (error: { stdout: string; stderr: string; code: number }) => error,
  )
}

describe('operations push', () => {
  it.each(Object.entries(manifests))(
    'registers what %s wrote, and a key runs it by the client’s own id',
    async (_tool, manifest) => {
      const pusher = await createKey(world, org.developer, ['mcp:read', 'mcp:write'])
      // What the command does but for its own process, which one of the manifests is pushed by below.
      const [registered] = await pushOperations(server.address, pusher.secret, readManifest(manifest))
      expect(registered?.sha256).toMatch(/^[0-9a-f]{64}$/)
      const clientId = Array.isArray(manifest.operations) ? manifest.operations[0]?.id : Object.keys(manifest)[0]
      const runner = await createKey(world, org.developer, ['mcp:read', 'mcp:write', 'user:read'])
      const answer = await world.post({ documentId: clientId }, { authorization: runner.authorization })
      expect(answer.errors).toEqual([])
    },
  )

  it('says what each operation needs and costs', async () => {
    const pusher = await createKey(world, org.developer, ['mcp:read', 'mcp:write'])
    const { stdout, code } = await push(manifests['Apollo'], pusher.secret)
    expect(code).toBe(0)
    expect(stdout).toMatch(/^[0-9a-f]{64}\t\w+\tneeds [\w: ]+\tcosts \d+\n$/)
  })

  it('registers nothing of a manifest with one bad document, and names it', async () => {
    const pusher = await createKey(world, org.developer, ['mcp:read', 'mcp:write'])
    const good = 'query Good { apiVersion viewer { id } }'
    const { stderr, code } = await push({ one: good, two: 'query Bad { nothing }' }, pusher.secret)
    expect(code).toBe(1)
    expect(stderr).toContain('operations.1.document')
    const { code: absent } = await world.post({ documentId: 'one' }, { authorization: pusher.authorization })
    expect(absent).toBe('PERSISTED_QUERY_NOT_FOUND')
  })

  it('is refused for a key that may not configure', async () => {
    const reader = await createKey(world, org.developer, ['mcp:read'])
    await expect(pushOperations(server.address, reader.secret, readManifest({ x: viewerName }))).rejects.toThrow('lacks scopes') // prettier-ignore
  })
})

describe('a registered operation', () => {
  const register = async (document: string) => {
    const { data, errors } = await world.graphql<any>(
      'mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { id sha256 requiredScopes cost } }',
      { input: { document } },
      org.developer,
    )
    expect(errors).toEqual([])
    return data.registerPersistedOperation as { id: string; sha256: string; requiredScopes: string[]; cost: number }
  }

  it('carries the scopes that it needs and its worst cost, whatever the variables', async () => {
    const small = await register(serviceList)
    expect(small.requiredScopes).toEqual(['mcp:read', 'mcp:write'])
    expect(small.cost).toBe(102)
    const { data } = await world.graphql<any>(
      'query ($d: [String!]!) { minimalScopes(documents: $d) }',
      { d: [serviceList, viewerName] },
      org.viewer,
    )
    expect(data.minimalScopes).toEqual(['mcp:read', 'mcp:write', 'user:read'])
  })

  it('is refused for a key that lacks one of them, with the missing ones named, before anything runs', async () => {
    const { sha256 } = await register(serviceList)
    const key = await createKey(world, org.developer, ['mcp:read'])
    const answer = await world.post({ documentId: sha256 }, { authorization: key.authorization })
    expect(answer).toMatchObject({ status: 403, code: 'FORBIDDEN' })
    expect(answer.errors[0]?.extensions['requires']).toEqual({ scopes: ['mcp:write'] })
  })

  it('ends for every key when it is deleted', async () => {
    const { id, sha256 } = await register('query Short { viewer { id } }')
    const key = await createKey(world, org.developer, ['mcp:read'])
    expect((await world.post({ documentId: id }, { authorization: key.authorization })).errors).toEqual([])
    await world.graphql(
      'mutation ($input: DeletePersistedOperationInput!) { deletePersistedOperation(input: $input) { sha256 } }',
      { input: { id } },
      org.developer,
    )
    for (const documentId of [id, sha256]) {
      const { code, status } = await world.post({ documentId }, { authorization: key.authorization })
      expect([code, status]).toEqual(['PERSISTED_QUERY_NOT_FOUND', 404])
    }
  })

  it('is not another organisation’s', async () => {
    const other = await seedOrganization(world)
    const { id, sha256 } = await register('query Mine { viewer { kind } }')
    const key = await createKey(world, other.admin, ['mcp:read'])
    for (const documentId of [id, sha256, 'constructor', '__proto__', '0'.repeat(64)])
      expect((await world.post({ documentId }, { authorization: key.authorization })).code).toBe(
        'PERSISTED_QUERY_NOT_FOUND',
      )
  })

  it('has versions under its name, each of which runs on for the clients that send it', async () => {
    const first = await register('query Versioned { viewer { id } }')
    const second = await register('query Versioned { viewer { id kind } }')
    expect((await register('query Versioned { viewer { id } }')).id).toBe(first.id)
    const key = await createKey(world, org.developer, ['mcp:read'])
    const viewerBy = async (documentId: string) => (await world.post<any>({ documentId }, { authorization: key.authorization })).data?.viewer // prettier-ignore
    expect(Object.keys(await viewerBy('Versioned@1'))).toEqual(['id'])
    expect(Object.keys(await viewerBy('Versioned@2'))).toEqual(['id', 'kind'])
    expect(Object.keys(await viewerBy('Versioned@latest'))).toEqual(['id', 'kind'])
    expect(Object.keys(await viewerBy(second.sha256))).toEqual(['id', 'kind'])
    for (const none of ['Versioned@3', 'Versioned@0', 'Nothing@latest', '__proto__@latest'])
      expect((await world.post({ documentId: none }, { authorization: key.authorization })).code).toBe('PERSISTED_QUERY_NOT_FOUND') // prettier-ignore
  })

  it('says whether it needs a second factor, and which kinds of rows it reads', async () => {
    const rename = await register('mutation Rename { updateOrganization(input: { name: "x" }) { id } }')
    const list = await register('query Rows { services(first: 1) { edges { node { token { hint } } } } }')
    const about = async (id: string) => (await world.graphql<any>('query ($id: ID!) { node(id: $id) { ... on PersistedOperation { stepUp records version } } }', { id }, org.viewer)).data.node // prettier-ignore
    expect(await about(rename.id)).toEqual({ stepUp: true, records: ['Organization'], version: 1 })
    expect(await about(list.id)).toEqual({ stepUp: false, records: ['Service', 'UserToken'], version: 1 })
  })

  it('is asked for by GET with headers for caches, and 304 where the asker has the answer', async () => {
    const { sha256 } = await register('query Cached { organization { name } }')
    const key = await createKey(world, org.developer, ['org:read'])
    const get = (headers: Record<string, string> = {}) => world.fetch(`/graphql?documentId=${sha256}`, { headers: { 'x-api-key': key.secret, ...headers } }) // prettier-ignore
    const first = await get()
    expect([first.status, first.headers.get('cache-control')]).toEqual([200, 'private, no-cache'])
    expect(first.headers.get('vary')).toMatch(/authorization/i)
    const etag = first.headers.get('etag') ?? ''
    expect(etag).toMatch(/^W\/"/)
    const again = await get({ 'if-none-match': etag })
    expect([again.status, await again.text()]).toEqual([304, ''])
    expect((await get({ 'if-none-match': 'W/"other"' })).status).toBe(200)
    await world.graphql('mutation { updateOrganization(input: { name: "Renamed" }) { id } }', {}, org.admin)
    expect((await get({ 'if-none-match': etag })).status).toBe(200)
    await world.graphql('mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { id } }', { input: { id: key.id } }, org.developer) // prettier-ignore
    expect((await get({ 'if-none-match': etag })).status).toBe(401)
  })

  it('costs what it costs: asked for, come to, and left', async () => {
    const { data, extensions } = await world.graphql<any>('{ organization { members(first: 50) { edges { node { user { id } } } } } }', {}, org.viewer) // prettier-ignore
    const { requested, actual, remaining } = extensions.cost as unknown as Record<string, number>
    expect(requested).toBe(1 + 1 + 1 + 50 * 2)
    expect(actual).toBe(1 + 1 + 1 + data.organization.members.edges.length * 2)
    expect(remaining).toBeGreaterThan(0)
  })
})

describe('a key that is bound to operations', () => {
  const make = (input: object) =>
    world.graphql<any>('mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret apiKey { allowedOperations } } }', { input: { name: 'bound', ...input } }, org.developer) // prettier-ignore
  const idOf = async (document: string) =>
    (await world.graphql<any>('mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { id sha256 } }', { input: { document } }, org.developer)).data.registerPersistedOperation as { id: string; sha256: string } // prettier-ignore

  it('runs those, and finds no other: neither the organisation’s nor the one for manifests', async () => {
    const mine = await idOf('query Bound { viewer { id role } }')
    const other = await idOf('query NotBound { viewer { id scopes } }')
    const { data, errors } = await make({ scopes: ['mcp:read', 'mcp:write'], allowedOperations: [mine.id] })
    expect(errors).toEqual([])
    expect(data.createApiKey.apiKey.allowedOperations).toEqual([mine.id])
    const call = async (documentId: string) => (await world.post<any>({ documentId, variables: { operations: [] } }, { 'x-api-key': data.createApiKey.secret })).code ?? 'ran' // prettier-ignore
    expect(await call(mine.sha256)).toBe('ran')
    expect(await call('Bound@latest')).toBe('ran')
    for (const none of [other.sha256, other.id, 'NotBound@1', pushDocumentId]) expect(await call(none)).toBe('PERSISTED_QUERY_NOT_FOUND') // prettier-ignore
  })

  it('is not made without the scopes that they need, which are named, nor for one that needs a second factor', async () => {
    const reads = await idOf('query Needs { services(first: 1) { edges { node { endpoint } } } }')
    const poor = await make({ scopes: ['mcp:read'], allowedOperations: [reads.id] })
    expect([poor.code, poor.errors[0]?.extensions['requires']]).toEqual(['FORBIDDEN', { scopes: ['mcp:write'] }])
    const steps = await idOf('mutation Steps { deleteService(input: { id: "x" }) { id } }')
    const never = await make({ scopes: ['mcp:read', 'mcp:write'], allowedOperations: [steps.id] })
    expect([never.code, never.errors[0]?.extensions['requires']]).toEqual(['FORBIDDEN', { stepUp: true }])
    const nothing = await make({ scopes: ['mcp:read'], allowedOperations: [org.admin.userId] })
    expect(nothing.code).toBe('NOT_FOUND')
  })
})

describe('a change of the schema', () => {
  it('is held against what is registered: the broken are named, and needs are stored anew', async () => {
    const as = { actor: system(), platform: world.platform }
    expect((await checkPersistedOperations.run(as, { store: true })).filter(({ broken }) => broken)).toEqual([])
    // Registered while the schema had a field more, and while another needed less.
    const yesterday = extendSchema(buildSchema(), parse('extend type Viewer { fieldOfYesterday: String }'))
    provideSchema(world.platform, yesterday)
    const input = { document: 'query Old { viewer { fieldOfYesterday } }' }
    const { errors } = await world.graphql('mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { id } }', { input }, org.developer) // prettier-ignore
    expect(errors).toEqual([])
    provideSchema(world.platform, buildSchema())
    await world.platform.database.transact(system(), (tx) => tx.persistedOperation.updateMany({ where: { name: 'Services' }, data: { requiredScopes: [], cost: 1 } })) // prettier-ignore
    const verdicts = await checkPersistedOperations.run(as, { store: true })
    expect(verdicts.filter(({ broken }) => broken)).toMatchObject([{ name: 'Old', broken: expect.stringContaining('fieldOfYesterday') as unknown }]) // prettier-ignore
    expect(verdicts.find(({ name }) => name === 'Services')?.newScopes).toEqual(['mcp:read', 'mcp:write'])
    const again = await checkPersistedOperations.run(as, { store: true })
    expect(again.find(({ name }) => name === 'Services')?.newScopes).toEqual([])
  })

  it('is asked of nobody’s request', async () => {
    const actor = { ...system(), kind: 'anonymous' as const }
    await expect(checkPersistedOperations.run({ actor, platform: world.platform }, { store: false })).rejects.toMatchObject({ code: 'UNAUTHENTICATED' }) // prettier-ignore
  })
})
