import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { roles, scopesOf, type Scope } from '../../src/kernel/permissions.ts'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { claimsOf, everyTable, fillEveryTable, insertion, rowFor, somebody, type Somebody, type Table } from './everyTable.ts' // prettier-ignore
import { openRaw, type RawDatabase, type Row } from './rawDatabase.ts'

type Verb = {
  table: string
  verb: 'INSERT' | 'UPDATE' | 'DELETE'
  /** What an update sets. */
  set?: string
  /** Whose rows may be written: one's own, or any of the organisation. */
  whose: 'own' | 'organization'
  scope?: Scope
  mfa?: true
  as?: 'developer'
}

const change = (table: string, set: string, rest: Omit<Verb, 'table' | 'verb' | 'set'>): Verb => ({ table, verb: 'UPDATE', set, ...rest }) // prettier-ignore
const add = (table: string, rest: Omit<Verb, 'table' | 'verb'>): Verb => ({ table, verb: 'INSERT', ...rest })
const remove = (table: string, rest: Omit<Verb, 'table' | 'verb'>): Verb => ({ table, verb: 'DELETE', ...rest })
const shared = { whose: 'organization' } as const
const own = { whose: 'own' } as const

/** What the application's role may write at all, and what each write needs, said once more and apart from the policies. */
const verbs: Verb[] = [
  change('users', "name = 'x'", own),
  change('sessions', 'revoked_at = now()', own),
  change('organizations', "name = 'x'", { ...shared, scope: 'org:write', mfa: true }),
  change('memberships', 'deactivated_at = now()', { ...shared, scope: 'org:admin', mfa: true }),
  remove('memberships', { ...shared, scope: 'org:admin', mfa: true }),
  add('invitations', { ...shared, scope: 'org:admin', mfa: true }),
  change('invitations', 'revoked_at = now()', { ...shared, scope: 'org:admin', mfa: true }),
  add('api_keys', { ...own, scope: 'user:token' }),
  change('api_keys', 'revoked_at = now()', { ...own, scope: 'user:token', as: 'developer' }),
  add('services', { ...shared, scope: 'mcp:write' }),
  change('services', "name = 'x'", { ...shared, scope: 'mcp:write' }),
  remove('services', { ...shared, scope: 'mcp:write', mfa: true }),
  add('tool_policies', { ...shared, scope: 'mcp:admin', mfa: true }),
  change('tool_policies', "access = 'BLOCKED'", { ...shared, scope: 'mcp:admin', mfa: true }),
  remove('tool_policies', { ...shared, scope: 'mcp:admin', mfa: true }),
  add('collections', { ...shared, scope: 'mcp:admin', mfa: true }),
  change('collections', "name = 'x'", { ...shared, scope: 'mcp:admin', mfa: true }),
  remove('collections', { ...shared, scope: 'mcp:admin', mfa: true }),
  add('collection_tools', { ...shared, scope: 'mcp:admin', mfa: true }),
  remove('collection_tools', { ...shared, scope: 'mcp:admin', mfa: true }),
  change('tool_pins', "pending_hash = 'x'", { ...shared, scope: 'mcp:admin', mfa: true }),
  add('user_tokens', { ...own, scope: 'user:token' }),
  change('user_tokens', "hint = 'x'", { ...own, scope: 'user:token' }),
  remove('user_tokens', { ...own, scope: 'user:token' }),
  add('shared_tokens', { ...shared, scope: 'mcp:admin', mfa: true }),
  change('shared_tokens', "hint = 'x'", { ...shared, scope: 'mcp:admin', mfa: true }),
  remove('shared_tokens', { ...shared, scope: 'mcp:admin', mfa: true }),
  add('persisted_operations', { ...own, scope: 'mcp:write' }),
  change('persisted_operations', "client_id = 'x'", { ...shared, scope: 'mcp:write' }),
  remove('persisted_operations', { ...shared, scope: 'mcp:write' }),
  add('audit_events', own),
  add('mail_outbox', own),
]

describe('writes by raw SQL as the unprivileged role', () => {
  let database: TestDatabase
  let raw: RawDatabase
  let tables: Map<string, Table>
  const admin = somebody('ORG_ADMIN')
  const colleague = somebody('ORG_ADMIN', admin.orgId)
  const developer = somebody('DEVELOPER', admin.orgId)
  const stranger = somebody('ORG_ADMIN')
  const rows = new Map<Somebody, Map<string, Row>>()

  beforeAll(async () => {
    database = await createDatabase()
    raw = await openRaw(database)
    const all = await everyTable(raw)
    tables = new Map(all.map((table) => [table.name, table]))
    for (const who of [admin, colleague, developer, stranger]) rows.set(who, await fillEveryTable(raw, all, who))
    // Rows were put in past the references; those that a write looks at are to lead somewhere.
    await raw.query("SET session_replication_role = 'replica'")
    for (const who of rows.keys())
      for (const name of ['tool_policies', 'user_tokens', 'shared_tokens'])
        await raw.query(`UPDATE ${name} SET service_id = $1 WHERE service_id = $2`, [rowOf(who, 'services')['id'], rowOf(who, name)['service_id']]) // prettier-ignore
    await raw.query("SET session_replication_role = 'origin'")
  })
  afterAll(async () => {
    await raw.close()
    await database.drop()
  })

  const rowOf = (who: Somebody, table: string): Row => rows.get(who)?.get(table) ?? expect.fail(`no row of ${table}`)

  async function newRow(table: string, of: Somebody): Promise<Row> {
    const row = await rowFor(raw, tables.get(table) ?? expect.fail(table), of)
    if ('id' in row) row['id'] = randomUUID()
    for (const reference of ['replaces_id', 'made_by_id']) if (reference in row) row[reference] = null
    if (table === 'mail_outbox') row['sender_id'] = of.userId
    // A service that has none yet, so that nothing is in the way but policies.
    if ('service_id' in row) {
      const service = await rowFor(raw, tables.get('services') ?? expect.fail('services'), of)
      await raw.query(...insertion('services', service))
      row['service_id'] = service['id']
    }
    if ('collection_id' in row) {
      const collection = await rowFor(raw, tables.get('collections') ?? expect.fail('collections'), of)
      await raw.query(...insertion('collections', collection))
      row['collection_id'] = collection['id']
    }
    return row
  }

  /** How many rows of somebody's a verb reaches with these claims; none where it is refused. */
  const reached = (verb: Verb, of: Somebody, claims: Row | null): Promise<number> =>
    raw.trial(async () => {
      const fresh = verb.verb === 'INSERT' ? await newRow(verb.table, of) : {}
      const key = verb.table === 'shared_tokens' ? 'org_id' : 'id'
      const value = key === 'id' ? rowOf(of, verb.table)['id'] : of.orgId
      await raw.become('mcp_app', claims)
      const outcome = await (verb.verb === 'INSERT'
        ? raw.attempt(...insertion(verb.table, fresh))
        : raw.attempt(`${verb.verb === 'DELETE' ? 'DELETE FROM' : 'UPDATE'} ${verb.table} ${verb.set ? `SET ${verb.set}` : ''} WHERE ${key} = $1`, [value])) // prettier-ignore
      if (typeof outcome === 'string') expect(outcome).toBe('42501')
      return typeof outcome === 'string' ? 0 : Math.min(1, outcome.count)
    })

  it.each(verbs.map((verb) => [`${verb.verb} ${verb.table}`, verb] as const))('%s: with all that it needs, and with nothing less', async (_name, verb) => {
    const who = verb.as === 'developer' ? developer : admin
    const { mfa_at, ...withoutMfa } = claimsOf(who)
    const full = { ...withoutMfa, mfa_at }
    const lacking = (scope: Scope) => ({ ...full, scope: scopesOf(who.role).filter((each) => each !== scope) })
    expect(await reached(verb, who, full), 'with everything').toBe(1)
    expect(await reached(verb, who, null), 'as nobody').toBe(0)
    expect(await reached(verb, stranger, full), 'another organisation’s').toBe(0)
    expect(await reached(verb, who === admin ? colleague : admin, full), 'a colleague’s').toBe(verb.whose === 'own' ? 0 : 1)
    expect(await reached(verb, who, withoutMfa), 'without a second factor').toBe(verb.mfa ? 0 : 1)
    for (const scope of scopesOf(who.role))
      expect(await reached(verb, who, lacking(scope)), `without ${scope}`).toBe(scope === verb.scope ? 0 : 1)
  }) // prettier-ignore

  const updates = verbs.filter(({ verb }) => verb === 'UPDATE')
  it.each(updates.map((verb) => [verb.table, verb] as const))(
    'UPDATE %s without a condition, for which no reading policy is asked, still reaches no row of others',
    (_table, { table, set = '', whose, as }) =>
      raw.trial(async () => {
        await raw.become('mcp_app', claimsOf(as === 'developer' ? developer : admin))
        // One text for all rows would meet a unique index.
        const outcome = await raw.attempt(`UPDATE ${table} SET ${table === 'persisted_operations' ? 'client_id = NULL' : set}`) // prettier-ignore
        const colleagues = table === 'organizations' || whose === 'own' ? 1 : 3
        expect(outcome).toMatchObject({ count: colleagues })
      }),
  )

  it('an administrator ends a colleague’s key by org:admin with a fresh second factor, and by nothing else', async () => {
    const verb = change('api_keys', 'revoked_at = now()', shared)
    const claims = claimsOf(admin)
    expect(await reached(verb, colleague, claims)).toBe(1)
    const { mfa_at, ...withoutFactor } = claims
    expect(mfa_at).toBeDefined()
    expect(await reached(verb, colleague, withoutFactor)).toBe(0)
    expect(await reached(verb, colleague, { ...withoutFactor, mfa: true })).toBe(0)
    const without = scopesOf('ORG_ADMIN').filter((scope) => scope !== 'org:admin')
    expect(await reached(verb, colleague, { ...claims, scope: without })).toBe(0)
  })

  it('an administrator’s removal of a member ends their credentials with a fresh second factor, and not without', async () => {
    const { mfa_at, ...withoutFactor } = claimsOf(admin)
    for (const [claims, ended] of [[withoutFactor, 0], [{ ...withoutFactor, mfa: true }, 0], [{ ...withoutFactor, mfa_at }, 4]] as const)
      await raw.trial(async () => {
        const left = async (): Promise<number> => {
          const { rows: [row] } = await raw.query(
            `SELECT (SELECT count(*) FROM sessions WHERE user_id = $1 AND revoked_at IS NULL) + (SELECT count(*) FROM api_keys WHERE user_id = $1 AND revoked_at IS NULL)
               + (SELECT count(*) FROM user_tokens WHERE user_id = $1) + (SELECT count(*) FROM oauth_connections WHERE user_id = $1) AS n`, [developer.userId])
          return Number(row?.['n'])
        }
        const before = await left()
        await raw.become('mcp_app', claims)
        await raw.query('SELECT app.end_member_credentials($1, true, now())', [developer.userId])
        await raw.become(null)
        expect(before - (await left())).toBe(ended)
      })
  }) // prettier-ignore

  it('no key is made with more than its maker’s role can hold', async () => {
    for (const role of roles) {
      const { rows: held } = await raw.query('SELECT app.scopes_of($1) AS scopes', [role])
      expect(new Set(held[0]?.['scopes'] as string[])).toEqual(new Set(scopesOf(role)))
    }
    const make = (scopes: string[]) =>
      raw.trial(async () => {
        const row = { ...(await newRow('api_keys', developer)), scopes }
        await raw.become('mcp_app', claimsOf(developer))
        return raw.attempt(...insertion('api_keys', row))
      })
    expect(await make(['mcp:read', 'user:token'])).toMatchObject({ count: 1 })
    for (const scopes of [['org:admin'], ['mcp:read', 'mcp:admin'], ['everything']]) expect(await make(scopes)).toBe('42501') // prettier-ignore
  })

  it('a key that is bound to operations sees no other, and makes none', () =>
    raw.trial(async () => {
      const bound = rowOf(admin, 'persisted_operations')['id']
      await raw.become('mcp_app', { ...claimsOf(admin), operations: [bound] })
      expect((await raw.query('SELECT id FROM persisted_operations')).rows).toEqual([{ id: bound }])
      await raw.become('mcp_app', { ...claimsOf(admin), operations: [] })
      expect((await raw.query('SELECT id FROM persisted_operations')).rows).toEqual([])
    }))
})
