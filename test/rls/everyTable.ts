import { randomInt, randomUUID } from 'node:crypto'
import { scopesOf, type Role } from '../../src/kernel/permissions.ts'
import type { RawDatabase, Row } from './rawDatabase.ts'

export type Column = { name: string; type: string; nullable: boolean; generated: boolean }
export type Table = { name: string; columns: Column[] }

/** Somebody in one organisation, with the claims of a full credential. */
export type Somebody = { orgId: string; userId: string; role: Role }
export const somebody = (role: Role, orgId: string = randomUUID()): Somebody => ({ orgId, userId: randomUUID(), role })
export const claimsOf = ({ orgId, userId, role }: Somebody): Row => ({
  sub: userId,
  org: orgId,
  org_role: role,
  scope: scopesOf(role),
  mfa_at: 1,
})

/** Every table of the application's schema, as the catalogue knows them, so that a new one is tested from its first day. */
export async function everyTable(raw: RawDatabase): Promise<Table[]> {
  const { rows } = await raw.query(`
    SELECT c.relname AS "table", a.attname AS name, format_type(a.atttypid, NULL) AS type, NOT a.attnotnull AS nullable,
      (a.attgenerated <> '' OR a.attidentity <> '') AS generated
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname, a.attnum`)
  const tables = new Map<string, Column[]>()
  for (const { table, ...column } of rows as (Row & { table: string })[])
    tables.set(table, [...(tables.get(table) ?? []), column as Column])
  return [...tables].map(([name, columns]) => ({ name, columns }))
}

const samples: Record<string, string> = {
  boolean: 'false',
  jsonb: '{}',
  bytea: '\\x00',
  date: '2026-01-01',
  'timestamp with time zone': '2026-01-01T00:00:00Z',
  'double precision': '1',
  inet: '192.0.2.1',
}

async function sampleOf(raw: RawDatabase, type: string): Promise<unknown> {
  if (type.endsWith('[]')) return []
  if (type === 'uuid') return randomUUID()
  if (/int/.test(type)) return randomInt(1, 30_000)
  if (type === 'text' || type.startsWith('character')) return randomUUID()
  const known = samples[type]
  if (known !== undefined) return known
  const { rows } = await raw.query('SELECT (enum_range(NULL::' + type + '))[1]::text AS first')
  return rows[0]?.['first']
}

/** A row of a table that belongs to somebody, valid by its types. */
export async function rowFor(raw: RawDatabase, { name, columns }: Table, who: Somebody): Promise<Row> {
  const row: Row = {}
  for (const column of columns) {
    if (column.generated) continue
    const isOwner = (name === 'users' && column.name === 'id') || column.name === 'user_id'
    const isOrganization = (name === 'organizations' && column.name === 'id') || column.name === 'org_id'
    if (isOwner) row[column.name] = who.userId
    else if (isOrganization) row[column.name] = who.orgId
    else if (
      /(^revoked|^deactivated|^disabled|^deleted|^expires|^rolled_back)_?(at|back)?/.test(column.name) &&
      column.nullable
    )
      row[column.name] = null // prettier-ignore
    else row[column.name] = await sampleOf(raw, column.type)
  }
  if (name === 'memberships') row['role'] = who.role
  // Goes with one endpoint alone.
  if (name === 'services') row['hosted'] = null
  if ('expires_at' in row && row['expires_at'] !== null) row['expires_at'] = '2999-01-01T00:00:00Z'
  return row
}

export const insertion = (table: string, row: Row): [string, unknown[]] => {
  const names = Object.keys(row).map((name) => `"${name}"`).join(', ') // prettier-ignore
  return [
    `INSERT INTO public."${table}" (${names}) SELECT ${names} FROM jsonb_populate_record(NULL::public."${table}", $1)`,
    [JSON.stringify(row)],
  ]
}

/** Puts one row of somebody's into every table, past triggers and references. */
export async function fillEveryTable(raw: RawDatabase, tables: Table[], who: Somebody): Promise<Map<string, Row>> {
  const rows = new Map<string, Row>()
  await raw.query("SET session_replication_role = 'replica'")
  for (const table of tables) {
    const row = await rowFor(raw, table, who)
    const isOneAnOrganization = table.name === 'organizations' || table.name === 'audit_heads'
    const [text, values] = insertion(table.name, row)
    await raw.query(isOneAnOrganization ? `${text} ON CONFLICT DO NOTHING` : text, values)
    rows.set(table.name, row)
  }
  await raw.query("SET session_replication_role = 'origin'")
  return rows
}
