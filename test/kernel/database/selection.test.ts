import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { getDatamodel } from '../../../src/generated/pothos.ts'
import { system } from '../../../src/kernel/actor.ts'
import type { Tx } from '../../../src/kernel/database/door.ts'
import { populate, type Population } from '../../authorization/population.ts'

type Args = Record<string, unknown>
type Field = { name: string; kind: string; type: string; isList: boolean; isRequired: boolean; isId: boolean }
type Delegate = { findMany(args: Args): Promise<Record<string, unknown>[]>; findFirst(args: Args): Promise<unknown> }

const models = Object.entries(getDatamodel().datamodel.models as unknown as Record<string, { fields: Field[] }>)
const fieldsOf = new Map(models.map(([name, { fields }]) => [name, fields]))
const delegateOf = (tx: Tx, model: string): Delegate =>
  (tx as unknown as Record<string, Delegate>)[`${model[0]?.toLowerCase()}${model.slice(1)}`] as Delegate

let town: Population
/** Rows as they are, by model: where the values of the filters come from. */
const rows = new Map<string, Record<string, unknown>[]>()
beforeAll(async () => {
  town = await populate()
  // A table that the platform itself may not read is nobody's question.
  for (const [model] of models) {
    const found = await town.doors.guarded.platform.database.transact(system(), (tx) => delegateOf(tx, model).findMany({ take: 20 })).catch(() => null) // prettier-ignore
    if (found) rows.set(model, found)
  }
}, 120_000)
afterAll(async () => {
  await town.doors.close()
  await town.database.drop()
})

const keyOf = (model: string): string =>
  fieldsOf.get(model)?.find(({ isId }) => isId)?.name ?? String(fieldsOf.get(model)?.[0]?.name)
const plain = (model: string): Field[] => (fieldsOf.get(model) ?? []).filter(({ kind, isList, type }) => kind !== 'object' && !isList && type !== 'Json' && type !== 'Bytes') // prettier-ignore

const select = (model: string, depth: number): fc.Arbitrary<Args> => {
  const fields = (fieldsOf.get(model) ?? []).filter(
    ({ kind, type }) => kind !== 'object' || (depth > 0 && rows.has(type)),
  )
  return fc
    .subarray(fields, { minLength: 1 })
    .chain((chosen) =>
      fc.record(
        Object.fromEntries(
          chosen.map((field) => [field.name, field.kind === 'object' ? nested(field, depth - 1) : fc.constant(true)]),
        ),
      ),
    )
}
const order = (model: string) => fc.constantFrom('asc', 'desc').map((way) => ({ [keyOf(model)]: way }))
const nested = ({ type, isList }: Field, depth: number): fc.Arbitrary<unknown> =>
  isList
    ? fc.record({ select: select(type, depth), where: fc.option(where(type), { nil: undefined }), orderBy: order(type), take: fc.integer({ min: 0, max: 5 }) }) // prettier-ignore
    : fc.record({ select: select(type, depth) })

/** A condition that some rows fit: its values are those of a row that is there. */
const where = (model: string): fc.Arbitrary<Args> => {
  const some = rows.get(model) ?? []
  const columns = plain(model)
  if (some.length === 0) return fc.constant({})
  const one = fc.record({ field: fc.constantFrom(...columns), row: fc.constantFrom(...some), how: fc.constantFrom('is', 'equals', 'not', 'in', 'lt', 'lte', 'gt', 'gte', 'set') }) // prettier-ignore
  const condition = one.map(({ field: { name, kind, type }, row, how }): Args => {
    const value = row[name]
    const ordered = kind === 'scalar' && type !== 'Boolean'
    if (how === 'set') return { [name]: { not: null } }
    if (value === null || how === 'is') return { [name]: value }
    if (how === 'in' && type !== 'Boolean') return { [name]: { in: [value] } }
    return { [name]: { [(ordered && how !== 'in') || how === 'not' ? how : 'equals']: value } }
  })
  const required = (field: Args): boolean => !Object.entries(field).some(([name, filter]) => fieldsOf.get(model)?.find((each) => each.name === name)?.isRequired && (filter === null || (filter as Args)['not'] === null)) // prettier-ignore
  const fitting = condition.filter(required)
  return fc.oneof(
    fitting,
    fc.array(fitting, { minLength: 1, maxLength: 3 }).map((all) => ({ AND: all })),
    fc.array(fitting, { minLength: 1, maxLength: 3 }).map((any) => ({ OR: any })),
  )
}

const question = () =>
  fc.constantFrom(...rows.keys()).chain((model) =>
    fc.record({
      model: fc.constant(model),
      first: fc.boolean(),
      args: fc.record({
        select: fc.option(select(model, 2), { nil: undefined }),
        where: fc.option(where(model), { nil: undefined }),
        orderBy: order(model),
        take: fc.option(fc.integer({ min: 1, max: 10 }), { nil: undefined }),
      }),
    }),
  )

describe('a compiled selection', () => {
  it('answers what Prisma answers: every type of column, relations, conditions, orders and bounds', async () => {
    const { database } = town.doors.guarded.platform
    let found = 0
    await fc.assert(
      fc.asyncProperty(question(), async ({ model, first, args: { take, ...rest } }) => {
        const args = first ? rest : { ...rest, take }
        const ask = (tx: Tx): Promise<unknown> => delegateOf(tx, model)[first ? 'findFirst' : 'findMany'](args)
        const texts: string[] = []
        const reader = database.openReader(system(), (text) => void texts.push(text))
        const [compiled, byPrisma] = [await ask(reader.tx), await database.transact(system(), ask)]
        await reader.close()
        expect(texts, fc.stringify(args)).toEqual([expect.stringMatching(/^SELECT json_build_array/)])
        expect(compiled).toEqual(byPrisma)
        found += [compiled].flat().length
      }),
      { numRuns: 400 },
    )
    expect(found).toBeGreaterThan(400)
  })

  it('leaves to Prisma what it cannot say, and that is answered as well', async () => {
    const { database } = town.doors.guarded.platform
    const [service] = rows.get('Service') ?? []
    const id = String(service?.['id'])
    for (const args of [
      { where: { slug: { contains: 's' } }, orderBy: { id: 'asc' } },
      { cursor: { id }, orderBy: { id: 'asc' }, take: 2 },
      { orderBy: { id: 'asc' }, take: -2 },
      { where: { NOT: { id } }, orderBy: { id: 'asc' } },
      { where: { OR: [] } },
    ]) {
      const texts: string[] = []
      const reader = database.openReader(system(), (text) => void texts.push(text))
      const answered = await delegateOf(reader.tx, 'Service').findMany(args)
      await reader.close()
      expect(texts.join(), JSON.stringify(args)).not.toContain('json_build_array')
      expect(answered).toEqual(await database.transact(system(), (tx) => delegateOf(tx, 'Service').findMany(args)))
    }
  })

  it('takes no name from a caller: what is no field of the schema goes to Prisma, which refuses it', async () => {
    const { database } = town.doors.guarded.platform
    for (const args of [
      { where: { 'id" = id OR "id': 'x' } },
      { select: { 'id", secret': true } },
      { orderBy: { 'id; DROP TABLE users': 'asc' } },
      { orderBy: { id: 'asc; DROP TABLE users' } },
    ])
      await expect(
        database.read(system(), (tx) => delegateOf(tx, 'Service').findMany(args)),
        JSON.stringify(args),
      ).rejects.toThrow(/Unknown|Invalid/)
  })
})
