import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import { events, heard, subscribe } from '../harness/events.ts'
import {
  addMember,
  createKey,
  createService,
  fresh,
  password,
  seedOrganization,
  type Organization,
  type Person,
} from '../harness/seed.ts'
import { createTwin, createWorld, type Credential, type World } from '../harness/world.ts'
import { startShifty, type Shifty } from './peers/shifty.ts'

let world: World
let org: Organization
let stranger: Organization
let shifty: Shifty

beforeAll(async () => {
  world = await createWorld()
  org = await seedOrganization(world)
  stranger = await seedOrganization(world)
  shifty = await startShifty()
  shifty.tools.set('echo', 'Repeats a text.')
  for (const each of [org, stranger]) await createService(world, each.admin, { slug: 'shifty', endpoint: shifty.url })
}, 180_000)
afterAll(async () => {
  await shifty.close()
  await world.close()
})

const rpc = (params: string, as: Credential, at = world, slug = org.slug) =>
  at.fetch(`/mcp/${slug}/shifty`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      authorization: as.authorization ?? '',
    },
    body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":${params}}`,
  })
const say = (text: string, as: Credential, at = world, slug = org.slug) =>
  rpc(JSON.stringify({ name: 'echo', arguments: { text } }), as, at, slug)
const log = async (as: Credential, args = '') =>
  (await world.graphql<any>(`{ requestLog(first: 100 ${args}) { edges { node { tool status arguments userId } } } }`, {}, as)).data.requestLog.edges.map(({ node }: any) => node) // prettier-ignore

describe('the request log', () => {
  it('keeps what no database can hold in a form that it can, and lets nobody’s call suffer for another’s', async () => {
    const hostile = [
      '{"name":"\\u0000"}',
      '{"name":"\\ud800 echo"}',
      '{"name":"echo","arguments":{"text":"nul \\u0000 and half \\udc00","\\u0000":1}}',
      JSON.stringify({ name: 'echo', arguments: { text: `${'x'.repeat(499)}😀 cut in the middle` } }),
      JSON.stringify({ name: `${'y'.repeat(499)}😀` }),
    ]
    const answers = await Promise.all([
      ...hostile.map((params) => rpc(params, org.developer)),
      ...Array.from({ length: 10 }, (_, n) => say(`bystander ${n}`, org.colleague)),
    ])
    const bodies = await Promise.all(answers.map((answer) => answer.json()))
    for (const body of bodies.slice(hostile.length)) expect(body).toMatchObject({ result: { content: [{ type: 'text' }] } }) // prettier-ignore
    for (const body of bodies) expect(JSON.stringify(body)).not.toContain('INTERNAL_SERVER_ERROR')
    expect(await log(org.admin)).toHaveLength(hostile.length + 10)
    expect(await log(org.admin, `userId: "${org.developer.userId}"`)).toHaveLength(hostile.length)
  })

  it('keeps no part of a secret, wherever a long text is cut', async () => {
    const secret = `ghp_${'s3cr3t'.repeat(6)}`
    const text = (pad: number): string => `${'x'.repeat(pad)} ${`${secret} `.repeat(60)}`
    const careless = await seedOrganization(world)
    await createService(world, careless.admin, { slug: 'shifty', endpoint: shifty.url })
    await Promise.all(Array.from({ length: secret.length + 1 }, (_, pad) => say(text(pad), careless.developer, world, careless.slug))) // prettier-ignore
    const kept = (await log(careless.admin)).map((row: any) => row.arguments.text)
    expect(kept).toHaveLength(secret.length + 1)
    for (const each of kept) {
      expect(each).toMatch(/^x* \*\*\*\* .*…$/)
      expect(each).not.toContain('ghp')
    }
  })

  it('adds up to the usage, by day, service, tool, user and how calls ended', async () => {
    await rpc('{"name":"absent"}', org.developer)
    await rpc('{"name":"echo","arguments":{}}', org.developer)
    await Promise.all(Array.from({ length: 25 }, (_, n) => say(`call ${n}`, n % 2 ? org.developer : org.colleague)))
    const rows = await world.platform.database.read(system(), (tx) =>
      tx.requestLog.findMany({ where: { orgId: org.id }, select: { status: true, userId: true, durationMs: true } }),
    )
    const { data } = await world.graphql<any>('{ usage(first: 100) { edges { node { tool userId status calls errors totalDurationMs } } } }', {}, org.admin) // prettier-ignore
    const usage = data.usage.edges.map(({ node }: any) => node)
    const sum = (of: any[], what: string) => of.reduce((total, row) => total + row[what], 0)
    expect(sum(usage, 'calls')).toBe(rows.length)
    expect(sum(usage, 'errors')).toBe(rows.filter(({ status }) => status !== 'ok').length)
    for (const status of ['ok', 'denied', 'invalid_arguments']) {
      const filtered = await world.graphql<any>(`{ usage(first: 100, status: ${status}) { edges { node { calls status } } } }`, {}, org.admin) // prettier-ignore
      const found = filtered.data.usage.edges.map(({ node }: any) => node)
      expect(sum(found, 'calls')).toBe(rows.filter((row) => row.status === status).length)
      expect(sum(found, 'calls')).toBeGreaterThan(0)
    }
    for (const person of [org.developer, org.colleague]) {
      const own = usage.filter(({ userId }: any) => userId === person.userId)
      expect(sum(own, 'calls')).toBe(rows.filter(({ userId }) => userId === person.userId).length)
    }
  })
})

describe('an export', () => {
  const get = (path: string, as: Credential = {}) => world.fetch(path, { headers: { ...as } })

  it('holds what its caller may read, as CSV that no spreadsheet runs and as JSON', async () => {
    for (const tool of ['=HYPERLINK("http://evil")', '+1', '-1', '@SUM(1)', ' =1', '\t=1', 'with "quotes", commas\nand lines'])
      await rpc(JSON.stringify({ name: tool, arguments: { text: '=1' } }), org.viewer) // prettier-ignore
    const response = await get('/exports/request-log.csv?status=denied', { authorization: org.viewer.authorization })
    expect(response.headers.get('content-type')).toMatch(/^text\/csv/)
    expect(response.headers.get('content-disposition')).toBe('attachment; filename="request-log.csv"')
    const csv = await response.text()
    expect(csv.split('\r\n')[0]).toBe('createdAt,userId,service,method,tool,status,durationMs,arguments,ip,userAgent,requestId') // prettier-ignore
    for (const cell of [`"'=HYPERLINK(""http://evil"")"`, `"'+1"`, `"'-1"`, `"'@SUM(1)"`, `"' =1"`, `"'\t=1"`, '"with ""quotes"", commas\nand lines"'])
      expect(csv).toContain(`,${cell},`) // prettier-ignore
    expect(csv).not.toMatch(/(^|,|\n)"?[=+@-]/m)
    expect(csv).not.toContain(org.developer.userId)

    const json = (await (await get('/exports/request-log.json', org.admin)).json()) as {
      rows: any[]
      complete: boolean
    }
    expect(json.complete).toBe(true)
    expect(json.rows.length).toBe((await log(org.admin)).length)
    const mine = (await (await get(`/exports/request-log.json?userId=${org.developer.userId}&tool=echo&status=ok`, org.admin)).json()) as { rows: any[] } // prettier-ignore
    expect(new Set(mine.rows.map(({ userId, tool, status }) => `${userId} ${tool} ${status}`))).toEqual(new Set([`${org.developer.userId} echo ok`])) // prettier-ignore
    const usage = (await (await get('/exports/usage.json', org.admin)).json()) as { rows: any[] }
    expect(usage.rows.reduce((total, { calls }) => total + calls, 0)).toBe(json.rows.length)
    expect((await (await get('/exports/usage.csv', org.viewer)).text()).split('\r\n').length).toBeGreaterThan(2)
    expect(((await (await get('/exports/request-log.json', stranger.admin)).json()) as { rows: [] }).rows).toEqual([])
    const { data } = await world.graphql<any>('{ auditTrail(first: 20) { edges { node { action } } } }', {}, org.admin)
    expect(data.auditTrail.edges.map(({ node }: any) => node.action)).toContain('requestLog.exported')
  })

  it('is refused without a credential, a scope, good values, and to other verbs', async () => {
    expect((await get('/exports/request-log.csv')).status).toBe(401)
    const key = await createKey(world, org.developer, ['org:read'])
    for (const path of ['/exports/request-log.csv', '/exports/usage.json']) {
      const response = await get(path, { authorization: key.authorization })
      expect(response.status).toBe(403)
      expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'FORBIDDEN' } }] })
    }
    for (const query of ['status=nonsense', 'from=yesterday', 'userId=1', 'order=asc', 'tool=a&orgId=1'])
      expect((await get(`/exports/request-log.csv?${query}`, org.admin)).status, query).toBe(400)
    expect((await get('/exports/audit.csv', org.admin)).status).toBe(404)
    const posted = await world.fetch('/exports/usage.csv', { method: 'POST', headers: { ...org.admin } })
    expect(posted.status).toBe(405)
  })

  it('goes over many pages, and breaks off when its credential ends', async () => {
    const call = { orgId: org.id, userId: org.admin.userId, serviceId: org.id, serviceSlug: 'bulk', method: 'tools/call', status: 'ok', durationMs: 1, requestId: 'r' } // prettier-ignore
    await world.platform.database.transact(system(), (tx) => tx.requestLog.createMany({ data: Array.from({ length: 4500 }, () => call) })) // prettier-ignore
    const whole = (await (await get('/exports/request-log.json?service=bulk', org.admin)).json()) as { rows: unknown[] }
    expect(whole.rows).toHaveLength(4500)
    const key = await createKey(world, org.admin, ['mcp:read', 'mcp:admin'])
    const response = await get('/exports/request-log.csv?service=bulk', { authorization: key.authorization })
    const reader = (response.body as ReadableStream<Uint8Array>).getReader()
    await reader.read()
    await world.graphql('mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { __typename } }', { input: { id: key.id } }, org.admin) // prettier-ignore
    const rest = async () => {
      for (let chunks = 1; ; chunks++) if ((await reader.read()).done) return chunks
    }
    await expect(rest()).rejects.toMatchObject({ code: 'UNAUTHENTICATED' })
  })
})

describe('the live subscription', () => {
  const document = 'subscription ($tool: String) { calls(tool: $tool) { service tool status userId arguments } }'
  const listen = (as: Credential, variables: object = {}) => subscribe(world, document, as, variables)

  it('is refused to all but those who monitor', async () => {
    for (const [as, code] of [[{}, 'UNAUTHENTICATED'], [org.viewer, 'FORBIDDEN'], [org.developer, 'FORBIDDEN']] as const) {
      const text = await (await listen({ ...as })).text()
      expect(text).toContain(code)
      expect(text).not.toContain('"calls":{')
    } // prettier-ignore
  })

  it('shows an administrator the calls of their organisation as they are recorded, and nobody else’s', async () => {
    const stream = events(await listen(org.admin, { tool: 'echo' }))
    const first = await heard(stream, async () => {
      await say('not for you', stranger.developer, world, stranger.slug)
      await rpc('{"name":"filtered out"}', org.developer)
      await say('for you, hunter2@example.com', org.developer)
    })
    const wanted = { service: 'shifty', tool: 'echo', status: 'ok', userId: org.developer.userId, arguments: { text: 'for you, h***@example.com' } } // prettier-ignore
    expect(first).toEqual({ data: { calls: wanted } })
    await say('another', org.colleague)
    const seen: any[] = []
    for await (const event of stream) {
      seen.push(event.data.calls)
      if (event.data.calls.userId === org.colleague.userId) break
    }
    expect(seen.every(({ tool }) => tool === 'echo')).toBe(true)
    expect(JSON.stringify(seen)).not.toContain('not for you')
  })

  it('shows an administrator without a second factor their own calls alone', async () => {
    const stream = events(await listen(org.adminWithoutMfa, { tool: 'echo' }))
    const first = await heard(stream, async () => {
      await say('a colleague’s', org.developer)
      await say('my own', org.admin)
    })
    expect(first.data.calls.userId).toBe(org.admin.userId)
    await say('a colleague’s again', org.developer)
    await say('the last of mine', org.admin)
    for await (const event of stream) {
      expect(event.data.calls.userId).toBe(org.admin.userId)
      if (event.data.calls.arguments.text === 'the last of mine') break
    }
  })

  it.each([
    [
      'caller is an administrator no more',
      ({ userId }: Person) => ({ membership: { role: 'DEVELOPER' as const, userId } }),
    ],
    ['session has no second factor any more', ({ userId }: Person) => ({ session: { mfaAt: null, userId } })],
  ])('ends when its %s', async (_what, lost) => {
    const other = await fresh(world, await addMember(world, org.id, 'ORG_ADMIN'))
    const stream = events(await listen(other))
    await heard(stream, () => say('still here', org.developer))
    const { membership, session } = { membership: null, session: null, ...lost(other) }
    await world.platform.database.transact(system(), async (tx) => {
      if (membership) await tx.membership.updateMany({ where: { userId: membership.userId }, data: { role: membership.role } }) // prettier-ignore
      if (session) await tx.session.updateMany({ where: { userId: session.userId }, data: { mfaAt: session.mfaAt } })
    })
    await say('after the loss', org.developer)
    const rest: any[] = []
    for await (const event of stream) rest.push(event)
    expect(JSON.stringify(rest)).not.toContain('after the loss')
    expect(rest.at(-1).errors[0].extensions.code).toBe('UNAUTHENTICATED')
  })

  it('ends with its credential', async () => {
    const { data } = await world.graphql<any>('mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }', { input: { email: org.admin.email, password } }) // prettier-ignore
    const session = { authorization: `Bearer ${data.signIn.accessToken}` }
    const stream = events(await listen(session))
    await heard(stream, () => say('still here', org.admin))
    await world.graphql('mutation { signOut { sessionId } }', {}, session)
    await say('after the end', org.admin)
    const rest: any[] = []
    for await (const event of stream) rest.push(event)
    expect(JSON.stringify(rest)).not.toContain('after the end')
    expect(rest.at(-1).errors[0].extensions.code).toBe('UNAUTHENTICATED')
  })

  it('hears of calls on another instance, where there can be one', async () => {
    if (world.database.embedded) return
    const twin = await createTwin(world)
    const stream = events(await listen(await fresh(world, org.admin)))
    const event = await heard(stream, () => say('from the other instance', org.developer, twin))
    expect(event.data.calls).toMatchObject({ arguments: { text: 'from the other instance' } })
    await stream.return(undefined)
    await twin.close()
  })
})
