import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { openRaw, type RawDatabase } from './rawDatabase.ts'

const list = async (raw: RawDatabase, text: string): Promise<string[]> =>
  (await raw.query(text)).rows.map((row) => Object.values(row).join(' '))

/** Tables of the application that the owner's word alone guards. */
const unguarded = `
  SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
    AND NOT (c.relrowsecurity AND c.relforcerowsecurity) ORDER BY 1`

describe('the catalogue', () => {
  let database: TestDatabase
  let raw: RawDatabase
  beforeAll(async () => {
    database = await createDatabase()
    raw = await openRaw(database)
  })
  afterAll(async () => {
    await raw.close()
    await database.drop()
  })

  it('has row level security enabled and forced on every table, the ledger of migrations included', async () => {
    expect(await list(raw, unguarded)).toEqual([])
    expect(await list(raw, "SELECT to_regclass('public._prisma_migrations') IS NOT NULL")).toEqual(['true'])
  })

  it('would notice a table without it, or with it enabled and not forced', () =>
    raw.trial(async () => {
      await raw.query('CREATE TABLE public.bare (id uuid)')
      await raw.query('CREATE TABLE public.half (id uuid)')
      await raw.query('ALTER TABLE public.half ENABLE ROW LEVEL SECURITY')
      expect(await list(raw, unguarded)).toEqual(['bare', 'half'])
    }))

  it('has no view, which would read as its owner, and nothing foreign', async () => {
    const kinds =
      "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm', 'f')"
    expect(await list(raw, kinds)).toEqual([])
  })

  it('holds the example policy of the security considerations as it is written there', async () => {
    const policy = `SELECT schemaname, tablename, permissive, roles::text, cmd, qual, with_check FROM pg_policies
      WHERE policyname = 'Users can only access their own tokens'`
    const { rows } = await raw.query(policy)
    expect(rows).toEqual([
      {
        schemaname: 'public',
        tablename: 'user_tokens',
        permissive: 'PERMISSIVE',
        roles: '{public}',
        cmd: 'ALL',
        qual: '(auth.uid() = user_id)',
        with_check: null,
      },
    ])
  })

  it('opens no policy to everybody but that one, and closes every other with an identity, but for the platform', async () => {
    const open = `SELECT tablename, policyname FROM pg_policies WHERE schemaname = 'public' AND NOT roles <@ '{mcp_system}' AND permissive = 'PERMISSIVE'
      AND policyname <> 'owner_all' AND (roles = '{public}' OR coalesce(qual, 'true') !~ 'uid|org_id' AND coalesce(with_check, 'true') !~ 'uid|org_id')`
    expect(await list(raw, open)).toEqual(['user_tokens Users can only access their own tokens'])
    expect(await list(raw, `SELECT DISTINCT roles::text FROM pg_policies WHERE policyname = 'owner_all'`)).toEqual([
      `{${(await list(raw, 'SELECT current_user'))[0]}}`,
    ])
  })

  it('runs requests as roles that own nothing, bypass nothing and can make nothing', async () => {
    const roles = `SELECT rolname FROM pg_roles WHERE rolname IN ('mcp_app', 'mcp_system')
      AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolcanlogin OR rolreplication)`
    expect(await list(raw, roles)).toEqual([])
    const members = `SELECT m.roleid::regrole FROM pg_auth_members m WHERE m.member IN ('mcp_app'::regrole, 'mcp_system'::regrole)`
    expect(await list(raw, members)).toEqual([])
    const owned = `SELECT relname FROM pg_class WHERE relowner IN ('mcp_app'::regrole, 'mcp_system'::regrole)`
    expect(await list(raw, owned)).toEqual([])
    const extra = `SELECT grantee, table_name, privilege_type FROM information_schema.role_table_grants
      WHERE table_schema = 'public' AND (grantee IN ('PUBLIC', 'anon', 'authenticated')
        OR grantee IN ('mcp_app', 'mcp_system') AND privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER'))`
    expect(await list(raw, extra)).toEqual([])
    for (const role of ['mcp_app', 'mcp_system'])
      for (const schema of ['public', 'app', 'auth'])
        expect(await list(raw, `SELECT has_schema_privilege('${role}', '${schema}', 'CREATE')`)).toEqual(['false'])
  })

  it('keeps the functions that run as their owner few and named, and each resolves names where callers cannot put any', async () => {
    const definers = `SELECT n.nspname || '.' || p.proname AS name, array_to_string(p.proconfig, ';') AS config
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1`
    const { rows } = await raw.query(definers)
    expect(rows.map(({ name }) => name)).toEqual(securityDefiners)
    for (const { name, config } of rows)
      // Unless it is named last, a caller's temporary schema is searched first of all for types and tables (CVE-2007-2138).
      expect(config, `${String(name)}: SET search_path = pg_catalog, public, pg_temp`).toMatch(/^search_path=(pg_catalog, )?(public, )?pg_temp$/) // prettier-ignore
  })

  it('does not let a caller’s own type run as the owner', () =>
    raw.trial(async () => {
      const [database] = await list(raw, 'SELECT current_database()')
      await raw.query(`GRANT TEMPORARY ON DATABASE "${String(database)}" TO mcp_app`)
      await raw.become('mcp_app')
      await raw.query(`CREATE FUNCTION pg_temp.spy(v jsonb) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        IF current_user <> 'mcp_app' THEN RAISE EXCEPTION 'runs as the owner' USING ERRCODE = 'MC999'; END IF;
        RETURN true; END $$`)
      await raw.query('CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (pg_temp.spy(VALUE))')
      const claims = JSON.stringify({ sub: randomUUID(), org: randomUUID() })
      expect(await raw.attempt("SELECT app.identify('user', gen_random_uuid(), $1)", [claims])).toBe('MC401')
    }))

  it('lets PUBLIC execute none of the application’s functions', async () => {
    const executable = `SELECT p.proname FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
      WHERE p.pronamespace = 'app'::regnamespace AND a.grantee = 0`
    expect(await list(raw, executable)).toEqual([])
  })
})

/** Each is a hole in the wall that was measured: add one here only after asking what a hostile caller could make of it. */
const securityDefiners = [
  'app.chain_audit_event',
  'app.change_own_password',
  'app.end_member_credentials',
  'app.forget_service_credentials',
  'app.hand_over',
  'app.identify',
  'app.identify_for',
  'app.service_connection',
  'app.service_credential',
]
