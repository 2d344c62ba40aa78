import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createKey, seedOrganization, type Organization } from '../harness/seed.ts'
import { asked, createWorld, type Credential, type World } from '../harness/world.ts'

let world: World
let org: Organization
let key: Credential
beforeAll(async () => {
  world = await createWorld()
  org = await seedOrganization(world)
  key = await createKey(world, org.developer, ['org:read', 'mcp:read'])
})
afterAll(() => world.close())

const json = { 'content-type': 'application/json' }
const as = (): Credential => ({ authorization: org.developer.authorization })

// What a stack trace, a driver, a generated client or the file system would say of itself.
const internal =
  /node_modules|\bat \S+ \(|\.ts:|\.js:|prisma|postgres|sqlstate|pothos|zod|invocation|\bselect\b.*\bfrom\b|\/(work|home|root|tmp)\//i

async function expectRefusal(response: Response, status: number, code: string): Promise<Record<string, any>> {
  const text = await response.text()
  expect(text).not.toMatch(internal)
  const body = JSON.parse(text) as { errors: { message: string; extensions: Record<string, any> }[] }
  expect({ status: response.status, code: body.errors[0]?.extensions['code'] }).toEqual({ status, code })
  expect(body.errors[0]?.message).not.toBe('')
  expect(body.errors[0]?.extensions['requestId']).toBe(response.headers.get('x-request-id'))
  expect(response.headers.get('content-type')).toMatch(/^application\/(graphql-response\+)?json; charset=utf-8$/)
  return body.errors[0] ?? {}
}

const send = (body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string> = json): Promise<Response> =>
  world.fetch('/graphql', { method: 'POST', headers: { ...headers, ...as() }, body })

describe('a body that is refused before anything is run', () => {
  it.each([
    ['is empty', ''],
    ['is cut off', '{"query": "{ viewer { id } }"'],
    ['has a trailing comma', '{"query": "{ viewer { id } }",}'],
    ['is a list: there are no batches', '[{"query": "{ viewer { id } }"}]'],
    ['is a string', '"{ viewer { id } }"'],
    ['is null', 'null'],
    ['has no document', '{}'],
    ['has a document that is a number', '{"query": 1}'],
    ['has variables that are a list', '{"query": "{ viewer { id } }", "variables": [1]}'],
    ['has variables that are text', '{"query": "{ viewer { id } }", "variables": "{}"}'],
    ['has a parameter that GraphQL over HTTP does not know', '{"query": "{ viewer { id } }", "admin": true}'],
    ['names two operations and chooses none', '{"query": "query A { viewer { id } } query B { viewer { id } }"}'],
    ['chooses an operation that is not there', '{"query": "query A { viewer { id } }", "operationName": "B"}'],
    ['is not GraphQL', '{"query": "DROP TABLE users"}'],
    ['asks for a field that is not there', '{"query": "{ viewer { passwordHash } }"}'],
    ['holds a NUL', '{"query": "query ($s: String!) { service(slug: $s) { id } }", "variables": {"s": "a\\u0000b"}}'],
    ['holds half a surrogate pair', '{"query": "query ($s: String!) { service(slug: $s) { id } }", "variables": {"s": "\\ud800"}}'],
  ])('%s', async (_, body) => {
    world.statements.length = 0
    await expectRefusal(await send(body), 400, 'BAD_USER_INPUT')
    expect(asked(world).filter((text) => text !== 'SELECT 1')).toEqual([])
  }) // prettier-ignore

  it('is not UTF-8', async () => {
    await expectRefusal(await send(new Uint8Array([0x7b, 0xff, 0xfe, 0x7d])), 400, 'BAD_USER_INPUT')
  })

  it.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/json; charset=utf-16',
    'application/graphql',
  ])('is sent as %s, as another site’s form could', async (type) => {
    await expectRefusal(await send('{"query":"{ viewer { id } }"}', { 'content-type': type }), 415, 'UNSUPPORTED_MEDIA_TYPE') // prettier-ignore
  })

  it('is larger than the limit, whether it says so or not', async () => {
    const huge = JSON.stringify({ query: `{ viewer { id } } #${'x'.repeat(2 ** 20)}` })
    await expectRefusal(await send(huge), 413, 'PAYLOAD_TOO_LARGE')
    const endless = new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(65_536)) })
    const init = { method: 'POST', headers: { ...json, ...as() }, body: endless, duplex: 'half' }
    await expectRefusal(await world.fetch('/graphql', init as RequestInit), 413, 'PAYLOAD_TOO_LARGE')
  })
})

describe('a value that is refused', () => {
  const create = 'mutation ($input: CreateServiceInput!) { createService(input: $input) { id } }'
  const right = { slug: 'good', name: 'Good', endpoint: 'https://upstream.example/mcp' }

  it.each([
    ['slug', { ...right, slug: 'Not A Slug' }],
    ['slug', { ...right, slug: '../admin' }],
    ['name', { ...right, name: '' }],
    ['name', { ...right, name: 'x'.repeat(10_000) }],
    ['endpoint', { ...right, endpoint: 'file:///etc/passwd' }],
    ['endpoint', { ...right, endpoint: 'not an address' }],
    ['endpoint', { ...right, endpoint: 'https://user:secret@upstream.example/mcp' }],
  ])('names its path: %s', async (field, input) => {
    const answer = await world.graphql(create, { input }, org.admin)
    expect(answer.code).toBe('BAD_USER_INPUT')
    expect(answer.status).toBe(400)
    const issues = answer.errors[0]?.extensions['issues'] as { path: string[]; message: string }[]
    expect(issues.map(({ path }) => path.join('.'))).toEqual([field])
    expect(issues[0]?.message).toMatch(/expected|too/i)
    expect(JSON.stringify(answer.errors)).not.toMatch(internal)
  })

  it.each([
    ['a field that the input does not have', { ...right, role: 'ORG_ADMIN' }],
    ['a number where text belongs', { ...right, name: 5 }],
    ['a list where text belongs', { ...right, slug: ['good'] }],
    ['no value where one must be', { slug: 'good' }],
    ['a mode that is not one', { ...right, credentialMode: 'EVERYBODY' }],
    ['null where text belongs', { ...right, name: null }],
  ])('is %s', async (_, input) => {
    const answer = await world.graphql(create, { input }, org.admin)
    expect({ status: answer.status, code: answer.code }).toEqual({ status: 400, code: 'BAD_USER_INPUT' })
    expect(JSON.stringify(answer.errors)).not.toMatch(internal)
  })

  it('leaves nothing half-written', async () => {
    const { data } = await world.graphql('{ services(first: 5) { edges { node { slug } } } }', {}, org.admin)
    expect(data['services']).toEqual({ edges: [] })
  })

  it.each([
    '{ services(first: 5, after: "nonsense") { edges { node { id } } } }',
    '{ services(first: 5, after: "%00") { edges { node { id } } } }',
    `{ services(first: 5, after: "${Buffer.from('GPC:S:x').toString('base64')}") { edges { node { id } } } }`,
    '{ services(first: -1) { edges { node { id } } } }',
    '{ services(first: 101) { edges { node { id } } } }',
    '{ services(first: 99999999999) { edges { node { id } } } }',
    '{ requestLog(first: 5, after: "AAAA") { edges { node { id } } } }',
  ])('is a bad page: %s', async (query) => {
    const answer = await world.graphql(query, {}, org.admin)
    expect({ status: answer.status, code: answer.code }).toEqual({ status: 400, code: 'BAD_USER_INPUT' })
    expect(JSON.stringify(answer.errors)).not.toMatch(internal)
  })

  it.each(['', 'x', '__proto__', Buffer.from('Service:1').toString('base64'), Buffer.from('__proto__:1').toString('base64')])(
    'is an id of nothing: %j is null, like a row that is not yours',
    async (id) => {
      const answer = await world.graphql('query ($id: ID!) { node(id: $id) { __typename } }', { id }, org.admin)
      expect(answer.data?.['node'] ?? null).toBe(null)
      expect([200, 400]).toContain(answer.status)
      expect(JSON.stringify(answer.errors)).not.toMatch(internal)
    },
  ) // prettier-ignore
})

describe('a registered operation that is not there', () => {
  it.each(['__proto__', 'constructor', 'toString', '0'.repeat(64), 'sha256:__proto__', '../..', '\u2028', 'a'.repeat(5000)])(
    '%j is not found, by document id and by hash, by POST and by GET',
    async (id) => {
      const bodies = [{ documentId: id }, { extensions: { persistedQuery: { version: 1, sha256Hash: id } } }]
      for (const body of bodies) {
        const posted = await world.fetch('/graphql', { method: 'POST', headers: { ...json, ...key }, body: JSON.stringify(body) }) // prettier-ignore
        await expectRefusal(posted, 404, 'PERSISTED_QUERY_NOT_FOUND')
        const search = new URLSearchParams(
          Object.entries(body).map(([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)]),
        )
        await expectRefusal(await world.fetch(`/graphql?${search}`, { headers: key }), 404, 'PERSISTED_QUERY_NOT_FOUND')
      }
    },
  ) // prettier-ignore

  it('is not what a key may send instead: a document', async () => {
    const answer = await world.graphql('{ viewer { id } }', {}, key)
    expect({ status: answer.status, code: answer.code }).toEqual({ status: 403, code: 'PERSISTED_QUERY_REQUIRED' })
  })
})

describe('every answer', () => {
  const seed = {
    'strict-transport-security': 'max-age=31536000; includeSubDomains',
    'content-security-policy': "default-src 'self'; script-src 'self'; object-src 'none'",
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'x-xss-protection': '1; mode=block',
    'referrer-policy': 'strict-origin-when-cross-origin',
    'cache-control': 'no-store',
  }
  it.each([
    ['of data', 200, () => send('{"query":"{ viewer { id } }"}')],
    ['of an error', 400, () => send('{')],
    ['without a credential', 401, () => world.fetch('/graphql', { method: 'POST', headers: json, body: '{"query":"{ viewer { id } }"}' })],
    ['of a bad method', 405, () => world.fetch('/graphql', { method: 'DELETE' })],
    ['of a page that is not there', 404, () => world.fetch('/nothing')],
    ['of the MCP door', 401, () => world.fetch('/mcp/a/b', { method: 'POST', headers: json, body: '{}' })],
    ['of health', 200, () => world.fetch('/healthz')],
    ['of readiness', 200, () => world.fetch('/readyz')],
  ])('%s carries the security headers, exactly', async (_, status, ask) => {
    const response = await ask()
    expect(response.status).toBe(status)
    expect(Object.fromEntries(Object.keys(seed).map((name) => [name, response.headers.get(name)]))).toEqual(seed)
    expect(response.headers.get('x-powered-by')).toBe(null)
    expect(response.headers.get('server')).toBe(null)
  }) // prettier-ignore
})
