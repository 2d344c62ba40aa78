import { z } from 'zod'
import { getDatamodel } from '../../generated/pothos.ts'
import { Prisma, type PrismaClient } from '../../generated/prisma/client.ts'
import type { Model } from '../ownership.ts'

type Args = Readonly<Record<string, unknown>>
type Column = { sql: string; type: string; isList: boolean }
/** A related table: the rows whose `foreign` column equals the `local` one of the row at hand. */
type Relation = { model: string; isList: boolean; local: string; foreign: string }
type Table = { sql: string; columns: ReadonlyMap<string, Column>; relations: ReadonlyMap<string, Relation> }
export type Tables = ReadonlyMap<string, Table>

/** What a statement answers: one JSON array a row, and what makes of it the object that Prisma would have made. */
export type Compiled = { text: string; values: unknown[]; decode: (row: unknown) => object }

type Decode = (value: unknown) => unknown
type Read = { sql: string; decode: (row: unknown) => object }

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`

const runtimeModel = z.object({
  models: z.record(
    z.string(),
    z.object({
      dbName: z.string().nullable(),
      fields: z.array(
        z.object({ name: z.string(), kind: z.string(), type: z.string(), dbName: z.string().optional() }),
      ),
    }),
  ),
})
const relationFields = z.record(
  z.string(),
  z.object({
    fields: z.array(
      z.object({
        name: z.string(),
        kind: z.string(),
        type: z.string(),
        isList: z.boolean(),
        relationName: z.string().nullish(),
        relationFromFields: z.array(z.string()).nullish(),
      }),
    ),
  }),
)

/** Tables, columns and relations as Prisma's client knows them. Every relation of the schema leads to an `id`. */
export function tablesOf(client: PrismaClient): Tables {
  const { models } = runtimeModel.parse((client as unknown as { _runtimeDataModel: unknown })._runtimeDataModel)
  const described = relationFields.parse(getDatamodel().datamodel.models)
  const columnOf = (model: string, name: string): string => {
    const field = models[model]?.fields.find((each) => each.name === name)
    if (!field) throw new Error(`${model} has no field ${name}.`)
    return quoted(field.dbName ?? field.name)
  }
  const isListOf = (model: string, name: string): boolean =>
    described[model]?.fields.find((each) => each.name === name)?.isList ?? false
  const relationsOf = (model: string): [string, Relation][] =>
    (described[model]?.fields ?? []).flatMap((field): [string, Relation][] => {
      if (field.kind !== 'object') return []
      const { name, type, isList, relationName, relationFromFields: [own] = [] } = field as typeof field & { relationFromFields: string[] } // prettier-ignore
      const back = own ?? described[type]?.fields.find((each) => each.relationName === relationName && each.relationFromFields?.length)?.relationFromFields?.[0] // prettier-ignore
      if (!back) throw new Error(`${model}.${name} leads nowhere.`)
      return [
        [name, own ? { model: type, isList, local: columnOf(model, own), foreign: '"id"' } : { model: type, isList, local: '"id"', foreign: columnOf(type, back) }], // prettier-ignore
      ]
    })
  return new Map(
    Object.entries(models).map(([model, { dbName, fields }]) => [
      model,
      {
        sql: quoted(dbName ?? model),
        columns: new Map(
          fields.flatMap(({ name, kind, type, dbName: column }) =>
            kind === 'object' ? [] : [[name, { sql: quoted(column ?? name), type, isList: isListOf(model, name) }] as const],
          ),
        ),
        relations: new Map(relationsOf(model)),
      },
    ]),
  ) // prettier-ignore
}

/** Says that a question goes past what is compiled here, so that Prisma answers it. Made once: it carries no news. */
const beyond = new Error('Prisma answers this.')

// Types whose JSON form is not what Prisma hands out.
const decoders = new Map<string, Decode>([
  ['DateTime', (value) => new Date(value as string)],
  ['BigInt', (value) => BigInt(value as string)],
  ['Bytes', (value) => Uint8Array.from(Buffer.from((value as string).slice(2), 'hex'))],
])

const isObject = (value: unknown): value is Args =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date) && !ArrayBuffer.isView(value) // prettier-ignore

const comparisons = new Map([
  ['equals', '='],
  ['lt', '<'],
  ['lte', '<='],
  ['gt', '>'],
  ['gte', '>='],
])

/** `json_build_array` takes a hundred arguments. */
const mostFields = 90

class Compiler {
  readonly values: unknown[] = []
  readonly #tables: Tables
  #aliases = 0

  constructor(tables: Tables) {
    this.#tables = tables
  }

  table(model: string): Table {
    const table = this.#tables.get(model)
    if (!table) throw beyond
    return table
  }

  alias(): string {
    return `t${(this.#aliases += 1)}`
  }

  #parameter(value: unknown): string {
    if (value === null || typeof value === 'function' || isObject(value)) throw beyond
    this.values.push(value)
    return `$${this.values.length}`
  }

  #compared(column: string, filter: unknown): string {
    if (filter === null) return `${column} IS NULL`
    if (Array.isArray(filter)) throw beyond
    if (!isObject(filter)) return `${column} = ${this.#parameter(filter)}`
    const all: string[] = []
    for (const [name, value] of Object.entries(filter)) {
      if (value === undefined) continue
      const operator = comparisons.get(name)
      if (name === 'in' && Array.isArray(value) && !value.includes(null)) all.push(`${column} = ANY(${this.#parameter(value)})`)
      else if (name === 'not' && value === null) all.push(`${column} IS NOT NULL`)
      else if (name === 'not' && !isObject(value)) all.push(`${column} <> ${this.#parameter(value)}`)
      else if (operator && value !== null) all.push(`${column} ${operator} ${this.#parameter(value)}`)
      else throw beyond
    } // prettier-ignore
    if (all.length === 0) throw beyond
    return all.join(' AND ')
  }

  /** That a related row fits. */
  #related({ model, isList, local, foreign }: Relation, alias: string, filter: unknown): string {
    if (!isObject(filter)) throw beyond
    const keys = Object.keys(filter)
    if (isList && (keys.length !== 1 || keys[0] !== 'some')) throw beyond
    if (!isList && keys.some((key) => key === 'is' || key === 'isNot')) throw beyond
    const other = this.alias()
    const table = this.table(model)
    const own = this.condition(table, other, isList ? filter['some'] : filter)
    const joined = `${other}.${foreign} = ${alias}.${local}`
    return `EXISTS (SELECT 1 FROM ${table.sql} ${other} WHERE ${own ? `${joined} AND ${own}` : joined})`
  }

  condition(table: Table, alias: string, where: unknown): string {
    if (where === undefined) return ''
    if (!isObject(where)) throw beyond
    const all: string[] = []
    for (const [name, filter] of Object.entries(where)) {
      if (filter === undefined) continue
      const column = table.columns.get(name)
      const relation = table.relations.get(name)
      if (column && !column.isList && column.type !== 'Json') all.push(this.#compared(`${alias}.${column.sql}`, filter))
      else if (relation) all.push(this.#related(relation, alias, filter))
      else if (name === 'AND') all.push(...[filter].flat().map((each) => this.condition(table, alias, each)))
      else if (name === 'OR' && Array.isArray(filter) && filter.length > 0) {
        const any = filter.map((each) => this.condition(table, alias, each))
        if (any.includes('')) throw beyond
        all.push(`(${any.map((each) => `(${each})`).join(' OR ')})`)
      } else throw beyond
    }
    return all.filter(Boolean).join(' AND ')
  }

  #order({ columns }: Table, alias: string, orderBy: unknown): string {
    const keys = (orderBy === undefined ? [] : [orderBy].flat()).flatMap((each) => {
      if (!isObject(each)) throw beyond
      return Object.entries(each).map(([name, direction]) => {
        const column = columns.get(name)
        if (!column || (direction !== 'asc' && direction !== 'desc')) throw beyond
        return `${alias}.${column.sql} ${direction.toUpperCase()}`
      })
    })
    return keys.length > 0 ? ` ORDER BY ${keys.join(', ')}` : ''
  }

  /** Everything behind the selected fields: which rows, in which order, and how many. */
  rows(table: Table, alias: string, args: Args, joined: string, most?: 1): string {
    for (const [name, value] of Object.entries(args))
      if (value !== undefined && !['select', 'where', 'orderBy', 'take', 'skip'].includes(name)) throw beyond
    const { take, skip } = args
    const where = [joined, this.condition(table, alias, args['where'])].filter(Boolean).join(' AND ')
    const order = this.#order(table, alias, args['orderBy'])
    if (take !== undefined && (most || typeof take !== 'number' || take < 0)) throw beyond
    if (skip !== undefined && skip !== 0) throw beyond
    const limit = most ? ' LIMIT 1' : take === undefined ? '' : ` LIMIT ${this.#parameter(take)}`
    return ` FROM ${table.sql} ${alias}${where ? ` WHERE ${where}` : ''}${order}${limit}`
  }

  #nested({ model, isList, local, foreign }: Relation, alias: string, args: Args): { sql: string; decode: Decode } {
    const table = this.table(model)
    const other = this.alias()
    const read = this.read(table, other, args)
    const rows = this.rows(table, other, args, `${other}.${foreign} = ${alias}.${local}`)
    if (!isList)
      return { sql: `(SELECT ${read.sql}${rows})`, decode: (row) => (row === null ? null : read.decode(row)) }
    return {
      sql: `(SELECT coalesce(json_agg(r.j), '[]') FROM (SELECT ${read.sql} AS j${rows}) r)`,
      decode: (found) => (found as unknown[]).map(read.decode),
    }
  }

  /** The selected fields of a row as one JSON array, in the order of the selection. */
  read(table: Table, alias: string, { select }: Args): Read {
    const asked = isObject(select)
      ? Object.entries(select)
      : [...table.columns.keys()].map((name) => [name, true] as const)
    if ((select !== undefined && !isObject(select)) || asked.length > mostFields) throw beyond
    const names: string[] = []
    const sql: string[] = []
    const decode: (Decode | undefined)[] = []
    for (const [name, value] of asked) {
      if (value === undefined || value === false) continue
      const column = table.columns.get(name)
      const relation = table.relations.get(name)
      if (column && value === true) {
        const { type, isList } = column
        const one = decoders.get(type)
        if (isList && one) throw beyond
        sql.push(type === 'BigInt' ? `${alias}.${column.sql}::text` : `${alias}.${column.sql}`)
        decode.push(one && ((found) => (found === null ? null : one(found))))
      } else if (relation && (value === true || isObject(value))) {
        const nested = this.#nested(relation, alias, value === true ? {} : value)
        sql.push(nested.sql)
        decode.push(nested.decode)
      } else throw beyond
      names.push(name)
    } // prettier-ignore
    return {
      sql: `json_build_array(${sql.join(', ')})`,
      decode: (row) => {
        const object: Record<string, unknown> = {}
        for (let i = 0; i < names.length; i += 1) {
          const found = (row as unknown[])[i]
          const make = decode[i]
          object[names[i] as string] = make ? make(found) : found
        }
        return object
      },
    }
  }
}

/**
 * One statement for a whole selection, nested rows included: PostgreSQL makes the JSON, and Prisma's client, whose work for a
 * selection is larger than the database's, is left out. Null for what is not compiled here (cursors, counts, text search, …):
 * Prisma answers that, to the same rows. `test/kernel/database/selection.test.ts` holds the two to each other.
 *
 * Names come from Prisma's own description of the schema, values travel as parameters.
 */
export function compileSelection(tables: Tables, model: Model, args: Args, most?: 1): Compiled | null {
  const compiler = new Compiler(tables)
  try {
    const table = compiler.table(model)
    const alias = compiler.alias()
    const { sql, decode } = compiler.read(table, alias, args)
    const text = `SELECT ${sql} AS j${compiler.rows(table, alias, args, '', most)}`
    return { text, values: compiler.values, decode }
  } catch (error) {
    if (error === beyond) return null
    throw error
  }
}

/** The delegates of Prisma's client, by the name of their property. */
export const modelOfDelegate = new Map<string, Model>(
  Object.values(Prisma.ModelName).map((model) => [`${model[0]?.toLowerCase()}${model.slice(1)}`, model]),
)
