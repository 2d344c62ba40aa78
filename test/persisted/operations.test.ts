import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
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
  return run(process.execPath, ['--import', 'tsx', 'src/cli.ts', 'operations', 'push', path, '--url', server.address], {
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
      const { stdout, code } = await push(manifest, pusher.secret)
      expect(code).toBe(0)
      expect(stdout).toMatch(/^[0-9a-f]{64}\t\w+\tneeds [\w: ]+\tcosts \d+\n$/)
      const clientId = Array.isArray(manifest.operations) ? manifest.operations[0]?.id : Object.keys(manifest)[0]
      const runner = await createKey(world, org.developer, ['mcp:read', 'mcp:write', 'user:read'])
      const answer = await world.post({ documentId: clientId }, { authorization: runner.authorization })
      expect(answer.errors).toEqual([])
    },
  )

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
    const { stderr, code } = await push({ x: viewerName }, reader.secret)
    expect(code).toBe(1)
    expect(stderr).toContain('lacks scopes')
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
})
