import { getDatamodel } from '../../generated/pothos.ts'
import type { Prisma } from '../../generated/prisma/client.ts'
import { isMember, type Actor } from '../actor.ts'
import { ownership, type Model } from '../ownership.ts'
import { modelOfDelegate } from './selection.ts'

type Args = Record<string, unknown>
type Delegate = Record<string, (args?: Args) => PromiseLike<unknown>>
type Relation = { model: Model; isList: boolean }

type Datamodel = Record<string, { fields: { name: string; kind: string; type: string; isList: boolean }[] }>
const models = getDatamodel().datamodel.models as unknown as Datamodel

/** The relations of each model, by field. */
const relations = new Map<string, Map<string, Relation>>(
  Object.entries(models).map(([model, { fields }]) => [
    model,
    new Map(
      fields.flatMap(({ name, kind, type, isList }) =>
        kind === 'object' ? [[name, { model: type as Model, isList }] as const] : [],
      ),
    ),
  ]),
)

/**
 * A filter that no row fits, by the first column of each model. (`OR: []` says so too, but beside a unique key Prisma leaves
 * it out, and the row is found.)
 */
const none = new Map<string, Args>(
  Object.entries(models).map(([model, { fields }]) => [model, { [fields[0]?.name ?? '']: { in: [] } }]),
)

const filterOf = (model: Model, actor: Actor): Args => {
  const own = isMember(actor) ? (ownership[model](actor) as Args | null) : null
  const filter = own ?? none.get(model)
  if (!filter) throw new Error(`No model is called ${model}.`)
  return filter
}

const isPlain = (filter: Args): boolean => Object.values(filter).every((value) => typeof value === 'string')

/**
 * Both conditions. Plain columns stand beside the ones that are there, since Prisma joins look-ups by a unique key into one
 * statement only while they compare plain columns.
 */
function both(where: Args | undefined, own: Args): Args {
  if (!where) return own
  if (isPlain(own) && Object.entries(own).every(([key, value]) => !(key in where) || where[key] === value))
    return { ...where, ...own }
  const before = where['AND'] === undefined ? [] : [where['AND']].flat()
  return { ...where, AND: [...before, own] }
}

/**
 * The conditions of a list. A place in it is a row as well: a cursor of somebody else's row finds no place, as if it were
 * none. (A cursor compares plain columns alone; what is not plain there is left to row level security.)
 */
function narrowList(model: Model, args: Args, actor: Actor): Args {
  const own = filterOf(model, actor)
  const where = both(args['where'] as Args | undefined, own)
  if (!args['cursor']) return { ...args, where }
  const plain = Object.fromEntries(Object.entries(own).filter(([, value]) => typeof value === 'string'))
  return { ...args, where, cursor: { ...(args['cursor'] as Args), ...plain } }
}

/**
 * The relations that a selection leads to. Lists are filtered like every list. A single related row is not, since Prisma
 * has no condition there: it belongs to the row that names it, and row level security filters it once more.
 */
function narrowSelection(model: Model, selection: Args, actor: Actor): Args {
  if (selection['_count']) throw new Error('Count through a query of its own, which ownership can filter.')
  const narrowed: Args = { ...selection }
  for (const [field, relation] of relations.get(model) ?? []) {
    const asked = selection[field]
    if (!asked) continue
    const args = narrowNested(relation.model, asked === true ? {} : (asked as Args), actor)
    narrowed[field] = relation.isList ? narrowList(relation.model, args, actor) : args
  }
  return narrowed
}

const narrowNested = (model: Model, args: Args, actor: Actor): Args => ({
  ...args,
  ...(args['select'] ? { select: narrowSelection(model, args['select'] as Args, actor) } : {}),
  ...(args['include'] ? { include: narrowSelection(model, args['include'] as Args, actor) } : {}),
})

const narrow = (model: Model, args: Args, actor: Actor): Args =>
  narrowList(model, narrowNested(model, args, actor), actor)

/** A new row stands in the organisation of who makes it. */
function assertOwn(data: unknown, actor: Actor): void {
  for (const { orgId } of [data].flat() as { orgId?: unknown }[])
    if (orgId !== undefined && orgId !== null && !(isMember(actor) && orgId === actor.orgId))
      throw new Error('A row would have been made in another organisation than the caller’s.')
}

type Verb = (model: Model, args: Args, actor: Actor) => Args

const made: Verb = (model, args, actor) => {
  assertOwn(args['data'], actor)
  return narrowNested(model, args, actor)
}

/** What becomes of the arguments of each of Prisma's methods. One that is not named here does not exist for members. */
const verbs = new Map<string, Verb>([
  ...['findUnique', 'findUniqueOrThrow', 'findFirst', 'findFirstOrThrow', 'findMany'].map((name) => [name, narrow] as const),
  ...['update', 'updateMany', 'updateManyAndReturn', 'delete', 'deleteMany'].map((name) => [name, narrow] as const),
  ...['count', 'aggregate', 'groupBy'].map((name) => [name, narrowList] as const),
  ...['create', 'createMany', 'createManyAndReturn'].map((name) => [name, made] as const),
  ['upsert', (model, args, actor) => (assertOwn(args['create'], actor), narrow(model, args, actor))],
]) // prettier-ignore

function ownedDelegate(model: Model, delegate: Delegate, actor: Actor): object {
  const methods: Record<string, unknown> = {}
  for (const [name, verb] of verbs)
    // A plain promise: Prisma's own would lead on to relations that nothing has filtered.
    methods[name] = (args: Args = {}) => delegate[name]?.(verb(model, args, actor)).then((result: unknown) => result)
  return methods
}

/** The unit of work of an actor, in which every statement on a model carries the filter of `ownership`. SQL states its own. */
export function owned(tx: Prisma.TransactionClient, actor: Actor): Prisma.TransactionClient {
  if (actor.kind === 'system') return tx
  const delegates = new Map<string, object>()
  return new Proxy(tx, {
    get(target, name) {
      const found: unknown = Reflect.get(target, name)
      const model = typeof name === 'string' ? modelOfDelegate.get(name) : undefined
      if (!model || typeof name !== 'string') return found
      const known = delegates.get(name) ?? ownedDelegate(model, found as Delegate, actor)
      delegates.set(name, known)
      return known
    },
  })
}
