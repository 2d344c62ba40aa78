import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { claimsOf, everyTable, fillEveryTable, insertion, somebody, type Somebody } from './everyTable.ts'
import { openRaw, type RawDatabase, type Row } from './rawDatabase.ts'

type Kind = 'user' | 'apiKey'

describe('identify(), which gives a transaction its identity', () => {
  let database: TestDatabase
  let raw: RawDatabase
  const developer = somebody('DEVELOPER')
  const colleague = somebody('DEVELOPER', developer.orgId)
  const stranger = somebody('DEVELOPER')
  const credentials = new Map<Somebody, Record<Kind, string>>()
  const credentialOf = (who: Somebody, kind: Kind): string => credentials.get(who)?.[kind] ?? ''

  beforeAll(async () => {
    database = await createDatabase()
    raw = await openRaw(database)
    const tables = await everyTable(raw)
    for (const who of [developer, colleague, stranger]) {
      const rows = await fillEveryTable(raw, tables, who)
      credentials.set(who, { user: String(rows.get('sessions')?.['id']), apiKey: String(rows.get('api_keys')?.['id']) })
    }
  })
  afterAll(async () => {
    await raw.close()
    await database.drop()
  })

  const identify = async (kind: string, credential: string, claims: Row): Promise<unknown> => {
    await raw.become('mcp_app')
    const outcome = await raw.attempt('SELECT app.identify($1, $2, $3)', [kind, credential, JSON.stringify(claims)])
    const { rows } = await raw.query('SELECT auth.uid()::text AS uid, app.org_id()::text AS org')
    return typeof outcome === 'string' ? [outcome, rows[0]?.['uid']] : rows[0]
  }
  const refused = ['MC401', null]

  describe.each<Kind>(['user', 'apiKey'])('by a credential of kind %s', (kind) => {
    const table = kind === 'user' ? 'sessions' : 'api_keys'
    const own = () => credentialOf(developer, kind)
    const claims = claimsOf(developer)

    it('accepts the one that stands', () =>
      raw.trial(async () => {
        const identity = { uid: developer.userId, org: developer.orgId }
        expect(await identify(kind, own(), claims)).toEqual(identity)
      }))

    it.each<[string, string, string]>([
      ['that expired', `UPDATE ${table} SET expires_at = now() - interval '1 second' WHERE id = $1`, 'credential'],
      [
        'that expires this moment',
        `UPDATE ${table} SET expires_at = date_trunc('milliseconds', now()) WHERE id = $1`,
        'credential',
      ],
      ['that was revoked', `UPDATE ${table} SET revoked_at = now() WHERE id = $1`, 'credential'],
      ['that is gone', `DELETE FROM ${table} WHERE id = $1`, 'credential'],
      ['of a disabled user', 'UPDATE users SET disabled_at = now() WHERE id = $1', 'user'],
      ['of a deactivated member', 'UPDATE memberships SET deactivated_at = now() WHERE user_id = $1', 'user'],
      ['of a member who was removed', 'DELETE FROM memberships WHERE user_id = $1', 'user'],
      ['of a member whose role was lowered', "UPDATE memberships SET role = 'VIEWER' WHERE user_id = $1", 'user'],
      ['of a member whose role was raised', "UPDATE memberships SET role = 'ORG_ADMIN' WHERE user_id = $1", 'user'],
    ])('refuses one %s', (_name, change, of) =>
      raw.trial(async () => {
        expect((await raw.query(change, [of === 'user' ? developer.userId : own()])).count).toBeGreaterThan(0)
        expect(await identify(kind, own(), claims)).toEqual(refused)
      }),
    )

    it.each<[string, () => [string, string, Row]]>([
      ['a colleague’s', () => [kind, credentialOf(colleague, kind), claims]],
      ['another organisation’s', () => [kind, credentialOf(stranger, kind), claims]],
      ['one’s own, in another organisation', () => [kind, own(), { ...claims, org: stranger.orgId }]],
      ['one’s own, as another user', () => [kind, own(), { ...claims, sub: colleague.userId }]],
      ['one’s own, in a higher role', () => [kind, own(), { ...claims, org_role: 'ORG_ADMIN' }]],
      ['one’s own, without a role', () => [kind, own(), { sub: developer.userId, org: developer.orgId }]],
      ['one’s own, without a user', () => [kind, own(), { ...claims, sub: null }]],
      ['an id that is nobody’s', () => [kind, randomUUID(), claims]],
      ['one of the other kind', () => [kind === 'user' ? 'apiKey' : 'user', own(), claims]],
      ['one of no known kind', () => ['system', own(), claims]],
    ])('refuses %s', (_name, call) => raw.trial(async () => expect(await identify(...call())).toEqual(refused)))
  })

  describe('and a second factor', () => {
    const factors = async (kind: Kind, claims: Row, mfaAt: string | null): Promise<unknown> =>
      raw.trial(async () => {
        await raw.query(`UPDATE sessions SET mfa_at = ${mfaAt ?? 'NULL'} WHERE id = $1`, [
          credentialOf(developer, 'user'),
        ])
        const found = await identify(kind, credentialOf(developer, kind), claims)
        const { rows } = await raw.query('SELECT app.has_mfa() AS given, app.has_fresh_mfa() AS fresh')
        return Array.isArray(found) ? found[0] : rows[0]
      })
    const { mfa_at: _at, ...claims } = claimsOf(developer)
    const seconds = (ago: number): number => Math.floor(Date.now() / 1000) - ago

    it('is believed as given where the session’s row says so, and as fresh for eleven minutes', async () => {
      const recent = "now() - interval '1 minute'"
      const old = "now() - interval '1 day'"
      expect(await factors('user', { ...claims, mfa: true, mfa_at: seconds(90) }, recent)).toEqual({ given: true, fresh: true }) // prettier-ignore
      expect(await factors('user', { ...claims, mfa: true }, recent)).toEqual({ given: true, fresh: false })
      expect(await factors('user', { ...claims, mfa: true }, old)).toEqual({ given: true, fresh: false })
      expect(await factors('user', { ...claims, mfa_at: seconds(100_000) }, old)).toEqual({ given: true, fresh: false })
      expect(await factors('user', claims, recent)).toEqual({ given: false, fresh: false })
    })

    it('ends a session that speaks of one which its row does not know', async () => {
      expect(await factors('user', { ...claims, mfa: true }, null)).toBe('MC401')
      expect(await factors('user', { ...claims, mfa_at: seconds(60) }, null)).toBe('MC401')
    })

    it('is nothing that a key can speak of', async () => {
      const none = { given: false, fresh: false }
      expect(await factors('apiKey', { ...claims, mfa: true, mfa_at: seconds(60) }, 'now()')).toEqual(none)
    })
  })

  it('holds for its transaction and no longer', async () => {
    await raw.trial(async () => void (await identify('user', credentialOf(developer, 'user'), claimsOf(developer))))
    const { rows } = await raw.query("SELECT nullif(current_setting('request.jwt.claims', true), '') AS claims")
    expect(rows[0]?.['claims']).toBeNull()
  })
})

describe('the audit trail', () => {
  let database: TestDatabase
  let raw: RawDatabase
  const admin = somebody('ORG_ADMIN')
  const other = somebody('ORG_ADMIN')
  beforeAll(async () => {
    database = await createDatabase()
    raw = await openRaw(database)
    for (let i = 0; i < 12; i += 1) await append(i % 3 === 0 ? other : admin, { i, note: 'ü "quoted" \\ \u2028' })
  })
  afterAll(async () => {
    await raw.close()
    await database.drop()
  })

  const append = ({ orgId, userId }: Somebody, detail: Row) =>
    raw.query(
      ...insertion('audit_events', {
        ...{ id: randomUUID(), org_id: orgId, user_id: userId, actor_kind: 'user', action: 'test.done', outcome: 'ok' },
        ...{ detail, created_at: new Date().toISOString(), sequence: 77, hash: 'made up' },
      }),
    )
  /** The sequence numbers of one organisation at which the chain, or its head, does not add up. */
  const broken = async ({ orgId }: Somebody): Promise<number[]> => {
    const { rows } = await raw.query(
      `WITH chain AS (
         SELECT e.sequence, e.hash, app.audit_hash(coalesce(lag(e.hash) OVER w, ''), e) AS computed, row_number() OVER w AS position
         FROM audit_events e WHERE e.org_id = $1 WINDOW w AS (ORDER BY e.sequence))
       SELECT sequence::int AS at FROM chain WHERE hash <> computed OR sequence <> position
       UNION SELECT h.sequence::int FROM audit_heads h WHERE h.org_id = $1
         AND (h.sequence, h.hash) IS DISTINCT FROM (SELECT (c.sequence, c.hash) FROM chain c ORDER BY c.sequence DESC LIMIT 1)
       ORDER BY 1`,
      [orgId],
    )
    return rows.map(({ at }) => Number(at))
  }

  it('is one unbroken chain for each organisation, whatever sequence and hash a writer claims', async () => {
    expect([await broken(admin), await broken(other)]).toEqual([[], []])
  })

  it.each([
    ['a changed action', "UPDATE audit_events SET action = 'other' WHERE org_id = $1 AND sequence = 3", [3]],
    ['a changed detail', `UPDATE audit_events SET detail = '{}' WHERE org_id = $1 AND sequence = 3`, [3]],
    ['a changed time', "UPDATE audit_events SET created_at = created_at - interval '1 ms' WHERE org_id = $1 AND sequence = 3", [3]],
    ['a changed user', 'UPDATE audit_events SET user_id = gen_random_uuid() WHERE org_id = $1 AND sequence = 3', [3]],
    ['a changed row with its hash made anew', "UPDATE audit_events e SET hash = app.audit_hash('', e) WHERE org_id = $1 AND sequence = 3", [3, 4]],
    ['a removed row', 'DELETE FROM audit_events WHERE org_id = $1 AND sequence = 3', [4, 5, 6, 7, 8]],
    ['a removed last row', 'DELETE FROM audit_events WHERE org_id = $1 AND sequence = 8', [8]],
  ])('shows %s, though the owner made it', (_name, change, at) =>
    raw.trial(async () => {
      await raw.query(change, [admin.orgId])
      expect(await broken(admin)).toEqual(at)
      expect(await broken(other)).toEqual([])
    }),
  ) // prettier-ignore

  it.each(['mcp_app', 'mcp_system'] as const)(
    'lets %s append, and neither change, remove nor forge the chain',
    (role) =>
      raw.trial(async () => {
        await raw.become(role, claimsOf(admin))
        await append(admin, {})
        const statements = [
          'UPDATE audit_events SET action = action',
          'UPDATE audit_events SET detail = NULL',
          'DELETE FROM audit_events',
          'TRUNCATE audit_events',
          'DELETE FROM audit_heads',
          "UPDATE audit_heads SET hash = ''",
          `INSERT INTO audit_heads VALUES (gen_random_uuid(), 1, '')`,
          'ALTER TABLE audit_events DISABLE TRIGGER ALL',
          'DROP TRIGGER chain ON audit_events',
          "SET session_replication_role = 'replica'",
        ]
        for (const statement of statements) expect(await raw.attempt(statement), statement).toBe('42501')
        await raw.become(null)
        expect(await broken(admin)).toEqual([])
      }),
  )

  it('takes no event for another organisation or in another’s name', () =>
    raw.trial(async () => {
      await raw.become('mcp_app', claimsOf(admin))
      const event = { id: randomUUID(), actor_kind: 'user', action: 'x.y', outcome: 'ok', sequence: 0, hash: '', created_at: '2026-01-01T00:00:00Z' } // prettier-ignore
      for (const who of [
        { org_id: other.orgId, user_id: admin.userId },
        { org_id: admin.orgId, user_id: other.userId },
        { org_id: null, user_id: admin.userId },
      ])
        // prettier-ignore
        expect(await raw.attempt(...insertion('audit_events', { ...event, ...who }))).toBe('42501')
    }))
})
