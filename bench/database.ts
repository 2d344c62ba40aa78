import { createHash } from 'node:crypto'
import pg from 'pg'
import { migrate } from '../src/kernel/database/migrate.ts'

export type Scale = { organizations: number; eventsPerOrganization: number }

const membersPerOrganization = 10
const servicesPerOrganization = 20

// Ids in the order of their making, as UUIDs of version 7 are: the first digits count, the last say of what.
const id = (n: string, kind: number): string =>
  `(lpad(to_hex(${n}), 8, '0') || '-0000-7000-8000-' || lpad('${kind}', 12, '0'))::uuid`

/** The rows of a scale, in sets. Each organisation has ten members, twenty services and a session of each member. */
const seedStatements = ({ organizations, eventsPerOrganization }: Scale): string[] => {
  const members = organizations * membersPerOrganization
  const events = organizations * eventsPerOrganization
  const orgOf = (n: string, per: number): string => id(`((${n} - 1) / ${per} + 1)::int`, 1)
  // One of the organisation's own rows, of which it has so many.
  const partOf = (per: number, kind: number): string =>
    id(`(((n - 1) / ${eventsPerOrganization}) * ${per} + n % 5 + 1)::int`, kind)
  return [
    `INSERT INTO organizations (id, slug, name) SELECT ${id('n', 1)}, 'org-' || n, 'Organisation ' || n FROM generate_series(1, ${organizations}) n`,
    `INSERT INTO users (id, email, name, password_hash, email_verified_at)
     SELECT ${id('n', 2)}, 'person-' || n || '@bench.example', 'Person ' || n, '-', now() FROM generate_series(1, ${members}) n`,
    `INSERT INTO memberships (id, org_id, user_id, role)
     SELECT ${id('n', 3)}, ${orgOf('n', membersPerOrganization)}, ${id('n', 2)},
       (CASE WHEN n % 10 = 1 THEN 'ORG_ADMIN' WHEN n % 10 < 6 THEN 'DEVELOPER' ELSE 'VIEWER' END)::"Role" FROM generate_series(1, ${members}) n`,
    `INSERT INTO sessions (id, user_id, org_id, expires_at, last_used_at)
     SELECT ${id('n', 4)}, ${id('n', 2)}, ${orgOf('n', membersPerOrganization)}, now() + interval '30 days', now() FROM generate_series(1, ${members}) n`,
    `INSERT INTO services (id, org_id, slug, name, description, endpoint, updated_at)
     SELECT ${id('n', 5)}, ${orgOf('n', servicesPerOrganization)}, 'service-' || n, 'Service ' || n, 'What it is for', 'https://upstream.example/mcp', now()
     FROM generate_series(1, ${organizations * servicesPerOrganization}) n`,
    `INSERT INTO request_log (id, org_id, user_id, service_id, service_slug, method, tool, status, duration_ms, request_id, created_at)
     SELECT ${id('n', 6)}, ${orgOf('n', eventsPerOrganization)}, ${partOf(10, 2)}, ${partOf(20, 5)}, 'service-' || n % 5, 'tools/call',
       'tool-' || n % 5, CASE n % 50 WHEN 0 THEN 'upstream_error' ELSE 'ok' END, n % 300, 'bench', now() - (n % 30) * interval '1 day'
     FROM generate_series(1, ${events}) n`,
    `INSERT INTO usage_daily (id, org_id, day, service_slug, tool, user_id, calls, errors, total_duration_ms, max_duration_ms)
     SELECT gen_random_uuid(), org_id, created_at::date, service_slug, tool, user_id, count(*), count(*) FILTER (WHERE status <> 'ok'), sum(duration_ms), max(duration_ms)
     FROM request_log GROUP BY org_id, created_at::date, service_slug, tool, user_id`,
  ]
}

/** An organisation, one of its ten members and that person's session, by number: the first administers, the second develops. */
export const personOf = (organization: number, place = 2): { orgId: string; userId: string; sessionId: string } => {
  const uuid = (n: number, kind: number): string =>
    `${n.toString(16).padStart(8, '0')}-0000-7000-8000-${String(kind).padStart(12, '0')}`
  const n = (organization - 1) * membersPerOrganization + place
  return { orgId: uuid(organization, 1), userId: uuid(n, 2), sessionId: uuid(n, 4) }
}

/** Fills a migrated database, as the owner of its tables. The log's indexes are made when its rows are there. */
export async function seed(client: pg.ClientBase, scale: Scale): Promise<void> {
  const { rows } = await client.query<{ name: string; definition: string }>(
    `SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
     FROM pg_index WHERE indrelid = 'request_log'::regclass AND NOT indisprimary`,
  )
  for (const { name } of rows) await client.query(`DROP INDEX ${name}`)
  for (const statement of seedStatements(scale)) await client.query(statement)
  for (const { definition } of rows) await client.query(definition)
  await client.query('ANALYZE')
}

export type BenchDatabase = { url: string; drop: () => Promise<void> }

/** A database of the bench's own on the server at `serverUrl`, filled to a scale. */
export async function createBenchDatabase(serverUrl: string, name: string, scale: Scale): Promise<BenchDatabase> {
  const asOwner = async <T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    return work(client).finally(() => client.end())
  }
  const address = new URL(serverUrl)
  address.pathname = `/${name}`
  await asOwner(serverUrl, (client) => client.query(`CREATE DATABASE ${name}`))
  const drop = (): Promise<void> =>
    asOwner(serverUrl, async (client) => {
      await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
      // Its logins go with it: a role holds for the whole server.
      const suffix = createHash('sha256').update(name).digest('hex').slice(0, 12)
      for (const role of ['mcp_app', 'mcp_system']) await client.query(`DROP ROLE IF EXISTS ${role}_${suffix}`)
    })
  try {
    await asOwner(address.href, async (client) => {
      await migrate(client)
      await client.query("SET synchronous_commit = off; SET maintenance_work_mem = '256MB'")
      await seed(client, scale)
      await client.query('VACUUM ANALYZE')
      await client.query('CHECKPOINT').catch(() => {})
    })
  } catch (error) {
    await drop()
    throw error
  }
  return { url: address.href, drop }
}
