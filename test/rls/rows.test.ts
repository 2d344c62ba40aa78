import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import {
  claimsOf,
  everyTable,
  fillEveryTable,
  insertion,
  rowFor,
  somebody,
  type Somebody,
  type Table,
} from './everyTable.ts'
import { openRaw, type Outcome, type RawDatabase, type Row } from './rawDatabase.ts'

const denied = '42501'

describe('row level security, by raw SQL as the unprivileged role', () => {
  let database: TestDatabase
  let raw: RawDatabase
  let tables: Table[]
  const admin = somebody('ORG_ADMIN')
  const viewer = somebody('VIEWER', admin.orgId)
  const colleague = somebody('DEVELOPER', admin.orgId)
  const stranger = somebody('ORG_ADMIN')
  const everybody: Record<string, Somebody> = { admin, viewer, colleague, stranger }
  const rows = new Map<Somebody, Map<string, Row>>()

  beforeAll(async () => {
    database = await createDatabase()
    raw = await openRaw(database)
    tables = await everyTable(raw)
    for (const who of Object.values(everybody)) rows.set(who, await fillEveryTable(raw, tables, who))
  })
  afterAll(async () => {
    await raw.close()
    await database.drop()
  })

  const readable = async (table: Table): Promise<string[]> => {
    const may = await raw.query(
      "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND has_column_privilege('mcp_app', attrelid, attnum, 'SELECT')",
      [`public."${table.name}"`],
    )
    return may.rows.map((row) => String(row['attname']))
  }
  /** All that a caller can see of a table, by the columns that the role may read at all. */
  const visible = async (table: Table): Promise<Row[]> => {
    const columns = await readable(table)
    if (columns.length === 0) return []
    return (await raw.query(`SELECT ${columns.map((name) => `"${name}"`).join(', ')} FROM public."${table.name}"`)).rows
  }
  const fingerprint = async (table: Table, column: string, value: string): Promise<string> => {
    const { rows: all } = await raw.query(`SELECT t::text AS row FROM public."${table.name}" t WHERE "${column}"::text = $1 ORDER BY 1`, [value]) // prettier-ignore
    return JSON.stringify(all)
  }
  const failsOrTouchesNothing = (outcome: Outcome | string): boolean =>
    typeof outcome === 'string' || outcome.count === 0
  const columnOf = (table: Table, kind: 'org' | 'user'): string | undefined => {
    if (table.name === (kind === 'org' ? 'organizations' : 'users')) return 'id'
    return table.columns.find(({ name }) => name === `${kind}_id`)?.name
  }

  it('has rows in every table, so that seeing none means something', async () => {
    expect(tables.length).toBeGreaterThanOrEqual(17)
    for (const { name } of tables)
      expect((await raw.query(`SELECT 1 FROM public."${name}" LIMIT 1`)).rows, name).toHaveLength(1)
  })

  it('shows nobody’s row without claims, in any table', () =>
    raw.trial(async () => {
      await raw.become('mcp_app')
      for (const table of tables) {
        const all = await raw.attempt(`SELECT * FROM public."${table.name}"`)
        expect(all === denied || (all as Outcome).rows.length === 0, table.name).toBe(true)
        expect(await visible(table), table.name).toEqual([])
      }
    }))

  it.each(['without claims', 'with claims of nobody', 'with the claims of a stranger'])(
    'lets nothing be written %s, in any table',
    (how) =>
      raw.trial(async () => {
        const claims =
          how === 'without claims' ? null : claimsOf(how.endsWith('nobody') ? somebody('ORG_ADMIN') : stranger)
        const victims = [admin, viewer, colleague]
        const before = new Map<string, string>()
        const owned = (table: Table): [string, string][] =>
        victims.flatMap((who) => (['org', 'user'] as const).flatMap((kind) => {
          const column = columnOf(table, kind)
          return column ? [[column, kind === 'org' ? who.orgId : who.userId] as [string, string]] : []
        })) // prettier-ignore
        for (const table of tables) for (const [column, value] of owned(table)) before.set(`${table.name}.${column}=${value}`, await fingerprint(table, column, value)) // prettier-ignore
        const fresh: { table: Table; row: Row }[] = []
        for (const who of victims) for (const table of tables) {
        const row = await rowFor(raw, table, who)
        // A row of theirs that is not there yet.
        if (table.name !== 'organizations' && table.name !== 'users' && typeof row['id'] === 'string') row['id'] = randomUUID()
        fresh.push({ table, row })
      } // prettier-ignore
        await raw.become('mcp_app', claims)
        for (const { table, row } of fresh) {
          const written = await raw.attempt(...insertion(table.name, row))
          expect(written, `INSERT ${table.name}`).toBe(denied)
        }
        for (const table of tables) {
          for (const { name } of table.columns) {
            const updated = await raw.attempt(`UPDATE public."${table.name}" SET "${name}" = DEFAULT`)
            if (claims === null) expect(failsOrTouchesNothing(updated), `UPDATE ${table.name}.${name}`).toBe(true)
          }
          const deleted = await raw.attempt(`DELETE FROM public."${table.name}"`)
          if (claims === null) expect(failsOrTouchesNothing(deleted), `DELETE ${table.name}`).toBe(true)
          expect(await raw.attempt(`TRUNCATE public."${table.name}" CASCADE`), `TRUNCATE ${table.name}`).toBe(denied)
        }
        await raw.become(null)
        for (const table of tables) for (const [column, value] of owned(table))
        expect(await fingerprint(table, column, value), `${table.name}.${column}`).toBe(before.get(`${table.name}.${column}=${value}`)) // prettier-ignore
      }),
  )

  it.each(Object.keys(everybody))(
    'shows the %s rows of their organisation alone, and personal rows only to whom they belong',
    (name) =>
      raw.trial(async () => {
        const who = everybody[name] as Somebody
        const colleagues = Object.values(everybody).filter(({ orgId }) => orgId === who.orgId).map(({ userId }) => userId) // prettier-ignore
        // Whose personal rows an administrator sees, by design: metadata of keys, the monitored request log, and usage (developers too).
        const everybodysFor: Record<string, Somebody['role'][]> = { api_keys: ['ORG_ADMIN'], request_log: ['ORG_ADMIN'], usage_daily: ['ORG_ADMIN', 'DEVELOPER'], audit_events: ['ORG_ADMIN'] } // prettier-ignore
        const shared = new Set(['memberships', 'persisted_operations', 'users'])
        await raw.become('mcp_app', claimsOf(who))
        let seen = 0
        for (const table of tables) {
          const all = await visible(table)
          seen += all.length
          const organization = columnOf(table, 'org')
          const user = columnOf(table, 'user')
          for (const row of all) {
            if (organization) expect(row[organization], table.name).toBe(who.orgId)
            if (!user) continue
            const isCommon = shared.has(table.name) || everybodysFor[table.name]?.includes(who.role)
            expect(isCommon ? colleagues : [who.userId], table.name).toContain(row[user])
          }
          if (!organization && !user) expect(all, `${table.name} belongs to the platform`).toEqual([])
        }
        expect(seen).toBeGreaterThan(8)
      }),
  )

  it.each<[string, string[]]>([
    ['with one', ['api_keys', 'audit_events', 'request_log', 'usage_daily']],
    ['with an old one', ['api_keys', 'audit_events', 'request_log', 'usage_daily']],
    ['without one', []],
  ])('shows an administrator, in a session %s (second factor), the records of others accordingly', (how, expected) =>
    raw.trial(async () => {
      const { mfa_at, ...rest } = claimsOf(admin)
      await raw.become('mcp_app', how === 'with one' ? { ...rest, mfa_at } : how === 'without one' ? rest : { ...rest, mfa: true }) // prettier-ignore
      const personal = ['api_keys', 'audit_events', 'request_log', 'usage_daily', 'sessions', 'user_tokens']
      const others: string[] = []
      for (const name of personal) {
        const users = (await raw.query(`SELECT user_id FROM ${name}`)).rows.map((row) => row['user_id'])
        expect(users, name).toContain(admin.userId)
        if (users.some((user) => user !== admin.userId)) others.push(name)
      }
      expect(others).toEqual(expected)
    }),
  )

  it('shows a developer the organisation’s usage by org:read, and their own without it', () =>
    raw.trial(async () => {
      const usage = async (claims: Row): Promise<number> => {
        await raw.become('mcp_app', claims)
        return (await raw.query('SELECT id FROM usage_daily')).rows.length
      }
      const { mfa_at: _factor, ...claims } = claimsOf(colleague)
      const scope = (claims['scope'] as string[]).filter((each) => each !== 'org:read')
      expect([await usage(claims), await usage({ ...claims, scope })]).toEqual([3, 1])
    }))

  it.each([
    {},
    { scope: ['org:admin', 'org:read', 'mcp:admin'], org_role: 'ORG_ADMIN' },
    claimsOf(somebody('ORG_ADMIN')),
    { sub: 'x', org: 'y' },
  ])('shows nothing to an incomplete or unknown identity: %j', (claims) =>
    raw.trial(async () => {
      await raw.become('mcp_app', claims)
      for (const table of tables) {
        const columns = await readable(table)
        const all = await raw.attempt(`SELECT ${columns.map((name) => `"${name}"`).join(', ') || '*'} FROM public."${table.name}"`) // prettier-ignore
        expect(typeof all === 'string' ? [] : all.rows, table.name).toEqual([])
      }
    }),
  )

  it('lets nobody read a hash or a ciphertext, not even of their own row', () =>
    raw.trial(async () => {
      const secret = /hash|ciphertext|sealed|wrapped|secret|private/
      // Digests of what everybody may see: the links of the trail, and what tools say of themselves.
      const open = /^(audit_|tool_pins$)/
      const sealed = tables.flatMap((table) =>
        table.columns.filter(({ name }) => secret.test(name) && !open.test(table.name)).map(({ name }) => [table.name, name] as const),
      ) // prettier-ignore
      expect(sealed.map((pair) => pair.join('.'))).toEqual(
        expect.arrayContaining(['users.password_hash', 'api_keys.secret_hash', 'user_tokens.ciphertext', 'shared_tokens.ciphertext', 'data_keys.wrapped', 'signing_keys.sealed_private']), // prettier-ignore
      )
      await raw.become('mcp_app', claimsOf(admin))
      for (const [table, column] of sealed) {
        expect(await raw.attempt(`SELECT "${column}" FROM public."${table}"`), `${table}.${column}`).toBe(denied)
        expect(await raw.attempt(`SELECT 1 FROM public."${table}" WHERE "${column}" IS NOT NULL`), column).toBe(denied)
        expect(await raw.attempt(`SELECT t FROM public."${table}" t`), `the whole row of ${table}`).toBe(denied)
      }
      for (const table of ['user_tokens', 'shared_tokens'])
        expect(await raw.attempt(`UPDATE ${table} SET hint = ciphertext`), table).toBe(denied)
    }))

  it('does not let an administrator pull a stranger into the organisation, and so learn that they exist', () =>
    raw.trial(async () => {
      const membership = { id: randomUUID(), org_id: admin.orgId, role: 'VIEWER', created_at: '2026-01-01T00:00:00Z' }
      await raw.become('mcp_app', claimsOf(admin))
      for (const user_id of [stranger.userId, randomUUID()])
        expect(await raw.attempt(...insertion('memberships', { ...membership, user_id }))).toBe(denied)
    }))
})
