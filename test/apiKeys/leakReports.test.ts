import { createHash, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mailer } from '../../src/kernel/mail.ts'
import { mintApiKey } from '../../src/modules/apiKeys/format.ts'
import { checkSignature } from '../../src/modules/apiKeys/leaks.ts'
import { seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'
import { call, makeKey, register, trail } from './keys.ts'

const pair = (namedCurve: string) => generateKeyPairSync('ec', { namedCurve })
const reporter = pair('prime256v1')
const stranger = pair('prime256v1')
const pem = (key: KeyObject): string => key.export({ type: 'spki', format: 'pem' }).toString()
const keys = { public_keys: [{ key_identifier: 'current', key: pem(reporter.publicKey), is_current: true }] }

let world: World
let org: Organization
let documentId: string
beforeAll(async () => {
  world = await createWorld({ LEAK_REPORT_KEYS: JSON.stringify(keys) })
  org = await seedOrganization(world)
  documentId = await register(world, org.admin, 'query Viewer { viewer { id } }')
})
afterAll(() => world.close())

const signed = (body: string, by = reporter.privateKey): string =>
  sign('sha256', Buffer.from(body), by).toString('base64')
const bodyOf = (...tokens: string[]): string =>
  JSON.stringify(
    tokens.map((token) => ({ token, type: 'mcp_api_key', url: 'https://code.example/x?y=z', source: 'content' })),
  )
const post = (body: string, headers: Record<string, string>): Promise<Response> =>
  world.fetch('/leak-reports', { method: 'POST', body, headers })
const deliver = (body: string): Promise<Response> =>
  post(body, { 'Github-Public-Key-Identifier': 'current', 'Github-Public-Key-Signature': signed(body) })
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

describe('a report that nobody vouches for', () => {
  it('is refused: unsigned, signed by a stranger, altered, under an unknown id, or with a signature that is none', async () => {
    const key = await makeKey(world, org.developer)
    const body = bodyOf(key.secret)
    const id = { 'Github-Public-Key-Identifier': 'current' }
    for (const answer of [
      await post(body, {}),
      await post(body, id),
      await post(body, { 'Github-Public-Key-Signature': signed(body) }),
      await post(body, { ...id, 'Github-Public-Key-Signature': signed(body, stranger.privateKey) }),
      await post(`${body} `, { ...id, 'Github-Public-Key-Signature': signed(body) }),
      await post(body, { 'Github-Public-Key-Identifier': 'other', 'Github-Public-Key-Signature': signed(body) }),
      await post(body, { ...id, 'Github-Public-Key-Signature': 'not base64!' }),
      await post(body, { ...id, 'Github-Public-Key-Signature': '' }),
      await post(body, { ...id, 'Github-Public-Key-Signature': Buffer.alloc(64).toString('base64') }),
    ])
      expect(answer.status).toBe(401)
    expect((await call(world, documentId, key.secret)).status).toBe(200)
  })

  it('is not taken at all where no reporter is configured', async () => {
    const closed = await createWorld()
    try {
      expect((await closed.fetch('/leak-reports', { method: 'GET' })).status).toBe(404)
      const answer = await closed.fetch('/leak-reports', { method: 'POST', body: bodyOf('x') })
      expect([404, 405]).toContain(answer.status)
    } finally {
      await closed.close()
    }
  })

  it('is cut off when it is too large, and refused when it is not a report', async () => {
    expect((await deliver(JSON.stringify('x'.repeat(300_000)))).status).toBe(413)
    for (const body of ['{', '[]', '{"token":"x"}', '[{"type":"x"}]', bodyOf('x'.repeat(1001))])
      expect([body.slice(0, 20), (await deliver(body)).status]).toEqual([body.slice(0, 20), 400])
    expect((await world.fetch('/leak-reports')).status).toBe(405)
  })
})

describe('a verified report', () => {
  it('ends real keys at once, tells their owner, and answers which tokens were real', async () => {
    const key = await makeKey(world, org.developer)
    const fake = mintApiKey().text.reveal()
    const [prefix] = key.secret.split(/_(?=[^_]+$)/)
    const half = mintApiKey()
      .text.reveal()
      .replace(/^mcp_sk_[^_]+/, prefix ?? '')
    const answer = await deliver(bodyOf(key.secret, fake, half, 'not a key'))
    expect(answer.status).toBe(200)
    const text = await answer.text()
    expect(text).not.toContain(key.secret)
    expect(JSON.parse(text)).toEqual([
      { token_hash: sha256(key.secret), token_type: 'mcp_api_key', label: 'true_positive' },
      { token_hash: sha256(fake), token_type: 'mcp_api_key', label: 'false_positive' },
      { token_hash: sha256(half), token_type: 'mcp_api_key', label: 'false_positive' },
      { token_hash: sha256('not a key'), token_type: 'mcp_api_key', label: 'false_positive' },
    ])
    expect((await call(world, documentId, key.secret)).status).toBe(401)
    const { data } = await world.graphql<any>(
      'query ($id: ID!) { node(id: $id) { ... on ApiKey { revokedReason } } }',
      { id: key.id },
      org.developer,
    )
    expect(data.node.revokedReason).toBe('leaked')
    const events = (await trail(world, 'apiKey.leaked')).filter(({ orgId }) => orgId === org.id)
    expect(events).toHaveLength(1)
    expect(events[0]).toMatchObject({ userId: org.developer.userId, detail: { url: 'https://code.example/x' } })
    await mailer(world.platform).deliver()
    const { readdir, readFile } = await import('node:fs/promises')
    const folder = `${world.platform.config.dataDirectory}/mail`
    const letters = await Promise.all((await readdir(folder)).map((name) => readFile(`${folder}/${name}`, 'utf8')))
    const told = letters.filter((letter) => letter.includes('An API key of yours was leaked'))
    expect(told).toHaveLength(1)
    expect(told[0]).toContain(org.developer.email)
    expect(told[0]).not.toContain(key.secret)
  })

  it('changes nothing when it comes again', async () => {
    const key = await makeKey(world, org.developer)
    const body = bodyOf(key.secret)
    const first = await (await deliver(body)).json()
    const events = (await trail(world, 'apiKey.leaked')).length
    expect(await (await deliver(body)).json()).toEqual(first)
    expect(await trail(world, 'apiKey.leaked')).toHaveLength(events)
  })
})

describe('the signature', () => {
  it('is checked as GitHub makes it: its published example passes', () => {
    /* eslint-disable no-secrets/no-secrets -- public, and of GitHub's documentation */
    const body =
      '[{"token":"NMIfyYncKcRALEXAMPLE","type":"mycompany_api_token","url":"https://github.com/octocat/Hello-World/blob/12345600b9cbe38a219f39a9941c9319b600c002/foo/bar.txt","source":"content"}]'
    const identifier = 'f9525bf080f75b3506ca1ead061add62b8633a346606dc5fe544e29231c6ee0d'
    const signature = 'MEUCIQDfLvT8/zM8F1aB3cM0ZwyeWF1m5YR6IhcUIv1OKQYL0wIgBZ5lVXB3gHK+dT8+xt0WgRVLqvsTPFiDO9QP/7eJ4yE='
    const key =
      '-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsz9ugWDj5jK5ELBK42ynytbo38gP\nHzZFI03Exwz8Lh/tCfL3YxwMdLjB+bMznsanlhK0RwcGP3IDb34kQDIo3Q==\n-----END PUBLIC KEY-----\n'
    /* eslint-enable no-secrets/no-secrets */
    expect(() => checkSignature([{ identifier, key }], body, { identifier, signature })).not.toThrow()
    expect(() => checkSignature([{ identifier, key }], `${body} `, { identifier, signature })).toThrow('not signed')
  })

  it('of another curve does not count', () => {
    const other = pair('secp384r1')
    const list = [{ identifier: 'x', key: pem(other.publicKey) }]
    const given = { identifier: 'x', signature: signed('[]', other.privateKey) }
    expect(() => checkSignature(list, '[]', given)).toThrow('not signed')
  })
})
