import {
  getNamedType,
  isCompositeType,
  isLeafType,
  isListType,
  getNullableType,
  Kind,
  type DocumentNode,
  type FieldNode,
  type FragmentDefinitionNode,
  type GraphQLCompositeType,
  type GraphQLField,
  type GraphQLSchema,
  type OperationDefinitionNode,
  type SelectionSetNode,
} from 'graphql'
import { AppError, badInput, type InputIssue } from '../kernel/errors.ts'
import type { Scope } from '../kernel/permissions.ts'
import type { Rule } from '../kernel/rule.ts'
import { boundExpansion } from './expansion.ts'
import { defaultListSize, defaultPageSize, inherited, maxPageSize, ruleOf, type FieldExtensions } from './rules.ts'

/** The most that one request may cost; a page of a hundred rows with a relation each costs about two hundred. */
export const maxCost = 5000

/** What one operation of a document asks for and costs, before anything runs. */
export type Analysis = {
  name: string | null
  kind: `${OperationDefinitionNode['operation']}`
  scopes: Scope[]
  /** A fresh second factor is needed somewhere. */
  stepUp: boolean
  /** Kinds of rows (Prisma's models) that its fields are read from. */
  records: string[]
  /** Rules of arguments that were given, each to be met before anything runs. */
  argumentRules: readonly Rule[]
  /** Resolutions of composite fields, weighted, with list sizes multiplied out. Exact for given variables, else the worst case. */
  cost: number
}

type Variables = Readonly<Record<string, unknown>>

type Walk = {
  schema: GraphQLSchema
  fragments: ReadonlyMap<string, FragmentDefinitionNode>
  /** Null when they are not known yet: then a size from a variable is the largest. */
  variables: Variables | null
  scopes: Set<Scope>
  stepUp: boolean
  records: Set<string>
  argumentRules: Set<Rule>
  issues: InputIssue[]
}

/** The operation that a request means, by name or because it is the only one. */
export function operationOf(document: DocumentNode, name: string | null | undefined): OperationDefinitionNode {
  const operations = document.definitions.filter((node) => node.kind === Kind.OPERATION_DEFINITION)
  const [only] = name ? operations.filter((node) => node.name?.value === name) : operations
  if (!only || (!name && operations.length > 1))
    throw badInput([{ path: ['operationName'], message: 'expected the name of one operation of the document' }])
  return only
}

/** The value of a paging argument; `undefined` when it is absent, `null` when only the variables will tell. */
function pageArgument(walk: Walk, node: FieldNode, name: string): number | null | undefined {
  const value = node.arguments?.find((argument) => argument.name.value === name)?.value
  if (!value || value.kind === Kind.NULL) return undefined
  if (value.kind === Kind.INT) return Number(value.value)
  if (value.kind !== Kind.VARIABLE) return undefined
  if (!walk.variables) return null
  const given = walk.variables[value.name.value]
  return typeof given === 'number' ? given : undefined
}

function pageSize(walk: Walk, node: FieldNode, path: string[]): number {
  const sizes = ['first', 'last'].map((name) => {
    const size = pageArgument(walk, node, name)
    if (typeof size === 'number' && (size < 0 || size > maxPageSize))
      walk.issues.push({ path: [...path, name], message: `expected 0 to ${maxPageSize}` })
    return size === null ? maxPageSize : size
  })
  return Math.min(maxPageSize, Math.max(0, sizes[0] ?? sizes[1] ?? defaultPageSize))
}

const cursorForm = /^GPC:S:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** A cursor is opaque to callers, and what is none never reaches the database. */
function checkCursors(walk: Walk, node: FieldNode, path: string[]): void {
  for (const { name, value } of node.arguments ?? []) {
    if (name.value !== 'after' && name.value !== 'before') continue
    const given = value.kind === Kind.VARIABLE ? walk.variables?.[value.name.value] : value.kind === Kind.STRING ? value.value : null // prettier-ignore
    if (typeof given === 'string' && !cursorForm.test(Buffer.from(given, 'base64').toString()))
      walk.issues.push({ path: [...path, name.value], message: 'expected a cursor that this API gave' })
  }
}

function note(walk: Walk, node: FieldNode, field: GraphQLField<unknown, unknown>): void {
  for (const { name } of node.arguments ?? []) {
    const argument = field.args.find((each) => each.name === name.value)
    const rule = argument && ruleOf(argument)
    if (!rule || rule === inherited) continue
    walk.argumentRules.add(rule)
    for (const scope of rule.scopes) walk.scopes.add(scope)
    walk.stepUp ||= rule.stepUp
  }
  const rule = ruleOf(field)
  if (!rule || rule === inherited) return
  for (const scope of rule.scopes) walk.scopes.add(scope)
  walk.stepUp ||= rule.stepUp
}

/** Cost of a selection; `listSize` is how many `edges` a connection that leads here can give. */
function costOf(
  walk: Walk,
  set: SelectionSetNode,
  parent: GraphQLCompositeType,
  listSize: number,
  path: string[],
): number {
  let total = 0
  for (const node of set.selections) {
    if (node.kind === Kind.INLINE_FRAGMENT) {
      const type = node.typeCondition ? walk.schema.getType(node.typeCondition.name.value) : parent
      if (isCompositeType(type)) total += costOf(walk, node.selectionSet, type, listSize, path)
    } else if (node.kind === Kind.FRAGMENT_SPREAD) {
      const fragment = walk.fragments.get(node.name.value)
      const type = fragment && walk.schema.getType(fragment.typeCondition.name.value)
      if (fragment && isCompositeType(type)) total += costOf(walk, fragment.selectionSet, type, listSize, path)
    } else {
      total += costOfField(walk, node, parent, listSize, path)
    }
  }
  return total
}

function costOfField(
  walk: Walk,
  node: FieldNode,
  parent: GraphQLCompositeType,
  listSize: number,
  path: string[],
): number {
  const field = 'getFields' in parent ? parent.getFields()[node.name.value] : undefined
  if (!field) return 0
  note(walk, node, field)
  const { cost } = field.extensions as FieldExtensions
  const type = getNamedType(field.type)
  const weight = cost?.weight ?? (isLeafType(type) ? 0 : 1)
  const model = type.extensions['pothosPrismaModel']
  if (typeof model === 'string') walk.records.add(model)
  if (!node.selectionSet || !isCompositeType(type)) return weight
  const here = [...path, node.alias?.value ?? node.name.value]
  const paged = field.args.some((argument) => argument.name === 'first')
  if (paged) checkCursors(walk, node, here)
  const isList = isListType(getNullableType(field.type))
  const times = isList ? (field.name === 'edges' ? listSize : (cost?.assumedSize ?? defaultListSize)) : 1
  const below = costOf(walk, node.selectionSet, type, paged ? pageSize(walk, node, here) : listSize, here)
  return weight + times * below
}

/** Reads a validated document once: what it requires, what it costs, and whether every page is within bounds. */
export function analyse(
  schema: GraphQLSchema,
  document: DocumentNode,
  name: string | null | undefined,
  variables: Variables | null,
): Analysis {
  boundExpansion(document)
  const operation = operationOf(document, name)
  const root = schema.getRootType(operation.operation)
  if (!root) throw badInput([{ path: ['query'], message: `this API has no ${operation.operation}` }])
  const fragments = new Map(
    document.definitions.flatMap((node) =>
      node.kind === Kind.FRAGMENT_DEFINITION ? [[node.name.value, node] as const] : [],
    ),
  )
  const walk: Walk = {
    schema,
    fragments,
    variables,
    scopes: new Set(),
    stepUp: false,
    records: new Set(),
    argumentRules: new Set(),
    issues: [],
  }
  const cost = costOf(walk, operation.selectionSet, root, 1, [])
  if (walk.issues.length) throw badInput(walk.issues)
  if (cost > maxCost)
    throw new AppError(
      'COST_LIMIT_EXCEEDED',
      `This operation costs ${cost}; the limit is ${maxCost}. Ask for smaller pages or fewer fields.`,
      {
        extensions: { cost: { requested: cost, limit: maxCost } },
      },
    )
  return {
    name: operation.name?.value ?? null,
    kind: operation.operation,
    scopes: [...walk.scopes].sort(),
    stepUp: walk.stepUp,
    records: [...walk.records].sort(),
    argumentRules: [...walk.argumentRules],
    cost,
  }
}
