import { randomBytes } from 'node:crypto'
import { decodeJwt } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { password, seedOrganization, type Organization } from '../harness/seed.ts'
import { createTwin, createWorld, origin, readAnswer, type World } from '../harness/world.ts'

const signInText = 'mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }'
const refreshText =
  'mutation ($input: RefreshSessionInput!) { refreshSession(input: $input) { accessToken user { id } } }'
const browser = { origin, 'x-requested-with': 'mcp-platform', 'content-type': 'application/json' }
const cookieOf = (headers: Headers): string => headers.getSetCookie()[0]?.split(';')[0] ?? ''

describe('refreshing a session', () => {
  let database: TestDatabase
  let one: World
  let two: World
  let org: Organization
  let now = new Date()
  const later = (seconds: number) => (now = new Date(now.getTime() + seconds * 1000))

  beforeAll(async () => {
    database = await createDatabase()
    one = await createWorld({}, { database, clock: () => now })
    two = await createTwin(one)
    org = await seedOrganization(one)
  })
  afterEach(() => (now = new Date()))
  afterAll(async () => {
    await two.close()
    await one.close()
    await database.drop()
  })

  const post = async (world: World, body: object, headers: Record<string, string>) =>
    world.fetch('/graphql', { method: 'POST', headers, body: JSON.stringify(body) })

  /** A new session, as a browser has it: the access token in memory, the cookie in its jar. */
  async function signIn(email = org.developer.email) {
    const body = { query: signInText, variables: { input: { email, password } } }
    const response = await post(one, body, { 'content-type': 'application/json' })
    const { headers, data } = await readAnswer<any>(response)
    return {
      setCookie: headers.getSetCookie(),
      cookie: cookieOf(headers),
      accessToken: data.signIn.accessToken as string,
    }
  }

  async function refresh(cookie: string, { world = one, headers = {}, input = {} } = {} as { world?: World; headers?: Record<string, string>; input?: object }) {
    const sent = { ...browser, ...(cookie ? { cookie } : {}), ...headers }
    const body = { query: refreshText, variables: { input } }
    const answer = await readAnswer<any>(await post(world, body, Object.fromEntries(Object.entries(sent).filter(([, value]) => value !== '')) as Record<string, string>)) // prettier-ignore
    return { ...answer, cookie: cookieOf(answer.headers), accessToken: answer.data?.refreshSession?.accessToken as string | undefined } // prettier-ignore
  } // prettier-ignore

  const ask = (token = '', world = one) =>
    world.graphql('{ viewer { id scopes } }', {}, { authorization: `Bearer ${token}` })
  const security = (sid: unknown) =>
    one.platform.database.read(system(), (tx) =>
      tx.auditEvent.findMany({ where: { action: 'session.reuseDetected', target: String(sid) } }),
    )

  it('gives a cookie that scripts, other hosts, plain HTTP and other sites never see', async () => {
    const { setCookie, accessToken } = await signIn()
    expect(setCookie).toHaveLength(1)
    expect(setCookie[0]).toMatch(
      /^__Host-refresh=[\w-]{43}; Path=\/; HttpOnly; Secure; SameSite=Strict; Max-Age=2592000$/,
    )
    expect(accessToken).toMatch(/^ey/)
  })

  it.each([
    ['another origin', { origin: 'https://evil.example' }],
    ['another port of the same host', { origin: `${origin}:8443` }],
    ['a sandboxed page', { origin: 'null' }],
    ['no origin', { origin: '' }],
    ['no custom header', { 'x-requested-with': '' }],
    ['another value of the custom header', { 'x-requested-with': 'XMLHttpRequest' }],
  ])('refuses a request of %s, and rotates nothing', async (_what, headers) => {
    const { cookie } = await signIn()
    const refused = await refresh(cookie, { headers })
    expect([refused.status, refused.code, refused.cookie]).toEqual([403, 'FORBIDDEN', ''])
    expect((await refresh(cookie)).errors).toEqual([])
  })

  it('refuses no cookie, an unknown token, two cookies and an access token in its place', async () => {
    const { cookie, accessToken } = await signIn()
    const unknown = `__Host-refresh=${randomBytes(32).toString('base64url')}`
    for (const bad of [
      '',
      unknown,
      `${cookie}; ${cookie}`,
      `__Host-refresh=${accessToken}`,
      cookie.replace('__Host-', ''),
    ])
      expect((await refresh(bad)).code).toBe('UNAUTHENTICATED')
  })

  it('takes the token from the cookie alone, never from the document', async () => {
    const { cookie } = await signIn()
    const refreshToken = cookie.split('=')[1]
    const { code } = await refresh('', { input: { refreshToken, sameOrigin: true } })
    expect(code).toBe('BAD_USER_INPUT')
  })

  it('authenticates nothing else by the cookie', async () => {
    const { cookie } = await signIn()
    for (const query of ['{ viewer { id } }', 'mutation { signOut { sessionId } }']) {
      const answer = await readAnswer(await post(one, { query }, { ...browser, cookie }))
      expect(answer.code).toBe('UNAUTHENTICATED')
    }
    const response = await one.fetch(`/mcp/${org.slug}/any`, {
      method: 'POST',
      headers: { ...browser, cookie },
      body: '{}',
    })
    expect(response.status).toBe(401)
  })

  it('rotates the token at each use and keeps the session', async () => {
    const first = await signIn()
    later(60)
    const second = await refresh(first.cookie)
    expect(second.errors).toEqual([])
    expect(second.data.refreshSession.user.id).toBeTruthy()
    expect(second.cookie).not.toBe(first.cookie)
    expect(decodeJwt(second.accessToken ?? '')['sid']).toBe(decodeJwt(first.accessToken)['sid'])
    later(60)
    const third = await refresh(second.cookie)
    expect(third.errors).toEqual([])
    expect(new Set([first.cookie, second.cookie, third.cookie]).size).toBe(3)
  })

  it('stores neither a token nor a log line of one', async () => {
    const { cookie } = await signIn()
    const second = await refresh(cookie)
    const rows = await one.platform.database.read(system(), (tx) => tx.refreshToken.findMany())
    for (const text of [JSON.stringify(rows), one.logged.join('')])
      for (const each of [cookie, second.cookie]) expect(text).not.toContain(each.split('=')[1])
  })

  it('ends the whole family when a token comes again after the grace, for good and on every instance, with a security event', async () => {
    const first = await signIn()
    const second = await refresh(first.cookie)
    later(11)
    const stolen = await refresh(first.cookie, { world: two })
    expect([stolen.status, stolen.code]).toEqual([401, 'UNAUTHENTICATED'])
    expect((await refresh(second.cookie)).code).toBe('UNAUTHENTICATED')
    for (const world of [one, two]) {
      expect((await ask(second.accessToken, world)).code).toBe('UNAUTHENTICATED')
      expect((await ask(first.accessToken, world)).code).toBe('UNAUTHENTICATED')
    }
    const [event] = await security(decodeJwt(first.accessToken)['sid'])
    expect(event).toMatchObject({ orgId: org.id, userId: org.developer.userId, ip: '192.0.2.1' })
  })

  it('leaves the other sessions of the account alone when one family ends', async () => {
    const other = await signIn()
    const first = await signIn()
    await refresh(first.cookie)
    later(11)
    await refresh(first.cookie)
    expect((await ask(other.accessToken)).errors).toEqual([])
  })

  it('answers two tabs that refresh at the same time with the same successor, so the family never forks', async () => {
    const { cookie, accessToken } = await signIn()
    const answers = await Promise.all(
      Array.from({ length: 6 }, (_, i) => refresh(cookie, { world: i % 2 ? one : two })),
    )
    expect(answers.flatMap(({ errors }) => errors)).toEqual([])
    expect(new Set(answers.map((answer) => answer.cookie)).size).toBe(1)
    const sessionId = String(decodeJwt(accessToken)['sid'])
    const open = await one.platform.database.read(system(), (tx) => tx.refreshToken.count({ where: { sessionId, rotatedAt: null } })) // prettier-ignore
    expect(open).toBe(1)
    later(60)
    expect((await refresh(answers[0]?.cookie ?? '')).errors).toEqual([])
    expect(await security(sessionId)).toEqual([])
  })

  it('answers a slow tab with the last token of the line, not with one that is used up', async () => {
    const first = await signIn()
    const second = await refresh(first.cookie)
    const third = await refresh(second.cookie)
    const slow = await refresh(first.cookie)
    expect(slow.cookie).toBe(third.cookie)
    later(60)
    expect((await refresh(slow.cookie)).errors).toEqual([])
  })

  it('forgets how to answer late, so that the database gives no token away', async () => {
    const first = await signIn()
    const second = await refresh(first.cookie)
    later(60)
    await refresh(second.cookie)
    const sessionId = String(decodeJwt(first.accessToken)['sid'])
    const rows = await one.platform.database.read(system(), (tx) =>
      tx.refreshToken.findMany({ where: { sessionId }, orderBy: { createdAt: 'asc' } }),
    )
    expect(rows.map(({ successor }) => successor !== null)).toEqual([false, true, false])
  })

  it('gives a token of fewer scopes when asked, and never more than the role holds', async () => {
    const { cookie } = await signIn(org.viewer.email)
    const narrow = await refresh(cookie, { input: { scopes: ['mcp:read', 'org:admin'] } })
    expect((await ask(narrow.accessToken)).data['viewer'].scopes).toEqual(['mcp:read'])
    const update = 'mutation { updateProfile(input: { name: "Other" }) { id } }'
    expect((await one.graphql(update, {}, { authorization: `Bearer ${narrow.accessToken}` })).code).toBe('FORBIDDEN')
    const unknown = await refresh(narrow.cookie, { input: { scopes: ['everything'] } })
    expect(unknown.code).toBe('BAD_USER_INPUT')
  })

  it('slides for thirty days', async () => {
    const first = await signIn()
    later(29 * 86_400)
    const second = await refresh(first.cookie)
    expect(second.errors).toEqual([])
    expect(second.headers.getSetCookie()[0]).toContain('Max-Age=2592000')
    later(30 * 86_400 + 1)
    expect((await refresh(second.cookie)).code).toBe('UNAUTHENTICATED')
  })

  it('ends after ninety days however often it was refreshed, and says so in the cookie', async () => {
    let { cookie } = await signIn()
    for (const day of [25, 50, 75]) {
      now = new Date(Date.now() + day * 86_400_000)
      const next = await refresh(cookie)
      expect(next.errors).toEqual([])
      cookie = next.cookie
      if (day === 75) expect(next.headers.getSetCookie()[0]).toMatch(/Max-Age=129\d{4}$/)
    }
    now = new Date(Date.now() + 90 * 86_400_000 + 60_000)
    expect((await refresh(cookie)).code).toBe('UNAUTHENTICATED')
  })

  it('is over after signing out, which clears the cookie', async () => {
    const { cookie, accessToken } = await signIn()
    const out = await one.graphql('mutation { signOut { sessionId } }', {}, { authorization: `Bearer ${accessToken}` })
    expect(out.headers.getSetCookie()[0]).toBe('__Host-refresh=; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age=0')
    expect((await refresh(cookie, { world: two })).code).toBe('UNAUTHENTICATED')
    expect((await ask(accessToken, two)).code).toBe('UNAUTHENTICATED')
  })

  it('opens a new session at each sign-in, whatever cookie came along (session fixation)', async () => {
    const planted = await signIn(org.viewer.email)
    const body = { query: signInText, variables: { input: { email: org.developer.email, password } } }
    const response = await post(one, body, { ...browser, cookie: planted.cookie })
    const fresh = await readAnswer<any>(response)
    expect(cookieOf(fresh.headers)).not.toBe(planted.cookie)
    expect(decodeJwt(fresh.data.signIn.accessToken)['sid']).not.toBe(decodeJwt(planted.accessToken)['sid'])
    expect((await ask((await refresh(planted.cookie)).accessToken)).data['viewer'].id).not.toBe((await ask(fresh.data.signIn.accessToken)).data['viewer'].id) // prettier-ignore
  })
})
