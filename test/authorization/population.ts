import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { isObjectType, type GraphQLSchema } from 'graphql'
import { member } from '../../src/kernel/actor.ts'
import { decodeNodeId } from '../../src/kernel/nodeId.ts'
import { ownership, type Model } from '../../src/kernel/ownership.ts'
import { scopes, type Scope } from '../../src/kernel/permissions.ts'
import { buildSchema } from '../../src/schema.ts'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import {
  addMember,
  createKey,
  seedOrganization,
  withOldFactor,
  type Organization,
  type Person,
} from '../harness/seed.ts'
import { createWorld } from '../harness/world.ts'
import { everyTable, insertion, rowFor, type Table } from '../rls/everyTable.ts'
import { openRaw, type RawDatabase, type Row } from '../rls/rawDatabase.ts'
import { openDoors, type Doors } from './doors.ts'

/** Limits that no proof is about: thousands of questions come from a handful of people here. */
export const unhurried = {
  COST_PER_CREDENTIAL_PER_MINUTE: '0',
  COST_PER_USER_PER_MINUTE: '0',
  COST_PER_ORGANIZATION_PER_MINUTE: '0',
  ANONYMOUS_REQUESTS_PER_SOURCE_PER_MINUTE: '0',
  LOG_LEVEL: 'error',
}

/** What each type of the schema is a row of, as the builder recorded it. */
export const modelOf = (schema: GraphQLSchema, typeName: string): string | undefined =>
  schema.getType(typeName)?.extensions['pothosPrismaModel'] as string | undefined

/** The table of each Prisma model, read from the one place that says so. */
async function tablesByModel(): Promise<Map<string, string>> {
  const text = await readFile(new URL('../../prisma/schema.prisma', import.meta.url), 'utf8')
  return new Map(
    [...text.matchAll(/^model (\w+) \{\n([\s\S]*?)^\}/gm)].map(([, model = '', body = '']) => [
      model,
      /@@map\("(\w+)"\)/.exec(body)?.[1] ?? model,
    ]),
  )
}

/** What an administrator's program can hold of administration, and what it takes to ask for anything with it. */
export const administratorsKey: Scope[] = ['mcp:read', 'mcp:admin', 'org:admin', 'org:read', 'user:read', 'user:token']

/** One person with a row of their own in every table that the schema shows. */
export type Inhabitant = { person: Person; rows: Map<string, string[]> }

export type Population = {
  database: TestDatabase
  home: Organization
  away: Organization
  /** The home's administrator, in a session whose second factor is an hour old. */
  adminWithOldFactor: Person
  deactivated: Person
  keys: Map<string, { authorization: string }>
  /** Keys of several scopes: an administrator's without administrative ones and with nothing but them, and two that are limited to a service and to an operation. */
  programs: Map<string, { authorization: string }>
  /** Of each person: ids of the rows that are theirs, by model. */
  inhabitants: Map<string, Inhabitant>
  doors: Doors
}

const anAdministrator = member(
  {
    ...{ kind: 'user', userId: randomUUID(), orgId: randomUUID(), role: 'ORG_ADMIN', credentialId: randomUUID() },
    ...{ mfaAt: null, given: scopes, origin: { ip: null, userAgent: null, requestId: 'population' } },
  },
  new Date(),
)

type Reference = { from: string; column: string; to: string; target: string }
const references = `
  SELECT c.conrelid::regclass::text AS "from", a.attname AS "column", c.confrelid::regclass::text AS "to", b.attname AS target
  FROM pg_constraint c, unnest(c.conkey, c.confkey) AS k(own, other)
  JOIN pg_attribute a ON a.attnum = k.own JOIN pg_attribute b ON b.attnum = k.other
  WHERE c.contype = 'f' AND a.attrelid = c.conrelid AND b.attrelid = c.confrelid`

/** Tables that show up in the schema, and those that their rows refer to. */
function shown(schema: GraphQLSchema, models: Map<string, string>, all: Reference[]): Set<string> {
  const names = new Set<string>()
  for (const type of Object.values(schema.getTypeMap())) {
    const table = isObjectType(type) ? models.get(modelOf(schema, type.name) ?? '') : undefined
    if (table) names.add(table)
  }
  for (let size = 0; size !== names.size;) {
    size = names.size
    for (const { from, to } of all) if (names.has(from)) names.add(to)
  }
  return names
}

const known = new Set(['users', 'organizations', 'memberships'])

async function rowsOf(raw: RawDatabase, tables: Table[], person: Person, all: Reference[], endpoint: string) {
  const rows = new Map<string, Row>()
  for (const table of tables) {
    const found = known.has(table.name) &&
      (await raw.query(`SELECT * FROM public."${table.name}" WHERE ${table.name === 'users' ? 'id = $1' : table.name === 'organizations' ? 'id = $2' : 'user_id = $1 AND org_id = $2'}
        AND $1::uuid IS NOT NULL AND $2::uuid IS NOT NULL`, [person.userId, person.orgId])).rows[0] // prettier-ignore
    rows.set(table.name, found || (await rowFor(raw, table, person)))
  }
  for (const { from, column, to, target } of all) {
    const row = rows.get(from)
    const other = rows.get(to)
    if (!row || !other || known.has(from) || column === 'org_id' || column === 'user_id') continue
    row[column] = from === to ? null : other[target]
  }
  const service = rows.get('services')
  if (service) Object.assign(service, { endpoint, enabled: true, slug: `s-${String(service['id']).slice(0, 8)}` })
  const event = rows.get('audit_events')
  if (event) event['sequence'] = String(2 ** 40 + Number.parseInt(String(event['id']).slice(0, 8), 16))
  return rows
}

/** Puts rows of everybody into every table that the schema shows, so that new types are inhabited from their first day. */
async function inhabit(raw: RawDatabase, people: [string, Person][], copies: number, endpoint: string) {
  const schema = buildSchema()
  const models = await tablesByModel()
  const all = (await raw.query(references)).rows as Reference[]
  const names = shown(schema, models, all)
  // Also those whose rows have an owner and stand in no answer as rows of their own.
  for (const [model, table] of models) if (ownership[model as Model](anAdministrator)) names.add(table)
  const tables = (await everyTable(raw)).filter(({ name }) => names.has(name))
  const inhabitants = new Map<string, Inhabitant>()
  await raw.query("SET session_replication_role = 'replica'")
  for (const [name, person] of people) {
    const ids = new Map<string, string[]>()
    for (let copy = 0; copy < copies; copy += 1)
      for (const [table, row] of await rowsOf(raw, tables, person, all, endpoint)) {
        const [text, values] = insertion(table, row)
        if (!known.has(table)) await raw.query(text, values)
        for (const [model, mapped] of models)
          if (mapped === table) ids.set(model, [...(ids.get(model) ?? []), String(row['id'])])
      }
    inhabitants.set(name, { person, rows: ids })
  }
  await raw.query("SET session_replication_role = 'origin'")
  return inhabitants
}

/** Two organisations with people of every kind, keys of every scope, and rows of theirs in every table that is shown. */
export async function populate({ copies = 1, endpoint = 'http://127.0.0.1:9/mcp' } = {}): Promise<Population> {
  const database = await createDatabase()
  const first = await createWorld(unhurried, { database })
  const home = await seedOrganization(first)
  const away = await seedOrganization(first)
  const deactivated = await addMember(first, home.id, 'DEVELOPER')
  const adminWithOldFactor = await withOldFactor(first, home.adminWithoutMfa)
  const keys = new Map<string, { authorization: string }>()
  for (const scope of scopes) keys.set(scope, await createKey(first, home.admin, [scope]))
  const limited = await createKey(first, home.developer, ['mcp:read', 'org:read', 'user:read', 'user:token'])
  const bound = await createKey(first, home.admin, ['mcp:read', 'org:read', 'user:read', 'user:token'])
  const programs = new Map([
    ['a reader', await createKey(first, home.admin, ['mcp:read', 'org:read', 'user:read', 'user:token'])],
    ['an administrator', await createKey(first, home.admin, administratorsKey)],
    ['one service alone', limited],
    ['one operation alone', bound],
  ])
  await first.close()
  const raw = await openRaw(database)
  const people: [string, Person][] = [
    ['admin', home.admin], ['developer', home.developer], ['viewer', home.viewer], ['colleague', home.colleague],
    ['deactivated', deactivated], ['otherAdmin', away.admin], ['otherColleague', away.colleague],
    ['otherViewer', away.viewer], ['otherDeveloper', away.developer],
  ] // prettier-ignore
  const inhabitants = await inhabit(raw, people, copies, endpoint)
  const service = inhabitants.get('developer')?.rows.get('Service')?.[0]
  await raw.query('UPDATE api_keys SET allowed_service_ids = ARRAY[$1::uuid] WHERE id = $2', [
    service,
    decodeNodeId(limited.id)?.id,
  ])
  const registered = inhabitants.get('developer')?.rows.get('PersistedOperation')?.[0]
  await raw.query('UPDATE api_keys SET allowed_operation_ids = ARRAY[$1::uuid] WHERE id = $2', [
    registered,
    decodeNodeId(bound.id)?.id,
  ])
  await raw.query('UPDATE memberships SET deactivated_at = now() WHERE user_id = $1', [deactivated.userId])
  await raw.close()
  const doors = await openDoors(database, first.platform)
  return { database, home, away, adminWithOldFactor, deactivated, keys, programs, inhabitants, doors }
}
