import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { getDatamodel } from '../../../src/generated/pothos.ts'
import { createDatabase, type TestDatabase } from '../../harness/database.ts'
import { openRaw, type RawDatabase } from '../../rls/rawDatabase.ts'

type Column = { name: string; type: string; nullable: boolean }
const scalars: Record<string, string> = { String: 'text', Int: 'integer', BigInt: 'bigint', Boolean: 'boolean', Json: 'jsonb', Bytes: 'bytea', Float: 'double precision' } // prettier-ignore
const native: Record<string, string> = {
  Uuid: 'uuid',
  'Timestamptz(3)': 'timestamp(3) with time zone',
  'VarChar(255)': 'character varying(255)',
  Date: 'date',
}

/** The tables that schema.prisma describes. Its line for a column: name, type with `?` or `[]`, then attributes. */
function describedIn(schema: string): Map<string, Column[]> {
  const enums = new Set([...schema.matchAll(/^enum (\w+)/gm)].map(([, name]) => name))
  const models = [...schema.matchAll(/^model \w+ \{\n(.*?)^\}/gms)].map(([, body]) => body ?? '')
  return new Map(
    models.map((body) => {
      const fields = [...body.matchAll(/^ {2}(\w+) +(\w+)(\?|\[\])?(.*)$/gm)]
      const columns = fields.flatMap(([, field = '', type = '', suffix, rest = '']) => {
        const base = native[/@db\.([\w()]+)/.exec(rest)?.[1] ?? ''] ?? scalars[type] ?? (enums.has(type) ? `"${type}"` : null) // prettier-ignore
        if (base === null) return []
        const name = / @map\("(\w+)"\)/.exec(rest)?.[1] ?? field
        return [{ name, type: base + (suffix === '[]' ? '[]' : ''), nullable: suffix === '?' }]
      })
      return [/@@map\("(\w+)"\)/.exec(body)?.[1] ?? '', columns.sort((a, b) => (a.name < b.name ? -1 : 1))]
    }),
  )
}

describe('schema.prisma', () => {
  let database: TestDatabase
  let raw: RawDatabase
  let text: string
  beforeAll(async () => {
    database = await createDatabase()
    raw = await openRaw(database)
    text = await readFile(fileURLToPath(new URL('../../../prisma/schema.prisma', import.meta.url)), 'utf8')
  })
  afterAll(async () => {
    await raw.close()
    await database.drop()
  })

  it('describes the tables, columns, types and nullability that the migrations make, and no others', async () => {
    const { rows } = await raw.query(`
      SELECT c.relname AS "table", a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
      WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
        AND c.relname <> '_prisma_migrations' ORDER BY c.relname, a.attname COLLATE "C"`)
    const made = new Map<string, Column[]>()
    for (const { table, ...column } of rows as (Column & { table: string })[]) {
      // An absent list and an empty one are the same to Prisma.
      if (column.type.endsWith('[]')) column.nullable = false
      made.set(table, [...(made.get(table) ?? []), column])
    }
    const described = describedIn(text)
    expect([...made.keys()].sort()).toEqual([...described.keys()].sort())
    for (const [table, columns] of described) expect(made.get(table), table).toEqual(columns)
  })

  it('is what the client was generated from', () => {
    const models = (getDatamodel() as unknown as { datamodel: { models: Record<string, { fields: { name: string; isRequired: boolean }[] }> } }).datamodel.models // prettier-ignore
    const generated = Object.entries(models).map(([name, { fields }]) => [name, ...fields.map((field) => field.name)].join()) // prettier-ignore
    const written = [...text.matchAll(/^model (\w+) \{\n(.*?)^\}/gms)].map(([, name, body = '']) =>
      [name, ...[...body.matchAll(/^ {2}(\w+) +\w/gm)].map(([, field]) => field)].join(),
    )
    expect(generated.sort()).toEqual(written.sort())
  })
})
