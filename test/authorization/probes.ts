import {
  getNamedType,
  isAbstractType,
  isEnumType,
  isInputObjectType,
  isListType,
  isNonNullType,
  isObjectType,
  type GraphQLArgument,
  type GraphQLField,
  type GraphQLInputType,
  type GraphQLObjectType,
  type GraphQLSchema,
} from 'graphql'
import type { Declared } from './expectation.ts'

type Field = GraphQLField<unknown, unknown>

/** One field of one type, and how it is reached: from a root field, or from a row that is asked for by its id. */
export type Probe = {
  type: string
  field: Field
  base: string
  /** From the base down to the field's parent. */
  path: { field: Field; on: string | null }[]
  /** Every rule from the base down to the field itself; null where a field inherits. */
  rules: (Declared | null)[]
}

/** The facts of a declaration; null where what leads here decides. */
export const declaredOn = ({ extensions }: { extensions: object }): Declared | null => {
  const { rule } = extensions as { rule?: unknown }
  return typeof rule === 'object' && rule !== null ? (rule as Declared) : null
}

export const isNode = (type: GraphQLObjectType): boolean => type.getInterfaces().some(({ name }) => name === 'Node')

type Values = Record<string, unknown>

/** A value that fits an input type, as plain as its names allow; `ids` are the rows that it speaks of. */
export function sample(type: GraphQLInputType, name: string, values: Values): unknown {
  if (isNonNullType(type)) return sample(type.ofType, name, values)
  if (isListType(type)) return [sample(type.ofType, name.replace(/s$/, ''), values)]
  if (isEnumType(type)) return type.getValues()[0]?.name
  if (isInputObjectType(type))
    return Object.fromEntries(
      Object.values(type.getFields())
        .filter((field) => isNonNullType(field.type))
        .map((field) => [field.name, sample(field.type, field.name, values)]),
    )
  const scalar = getNamedType(type).name
  if (scalar === 'Int' || scalar === 'Float') return 1
  if (scalar === 'Boolean') return true
  if (scalar === 'DateTime') return '2026-01-01T00:00:00Z'
  if (scalar === 'JSON') return {}
  return values[name] ?? (/id$/i.test(name) ? values['id'] : 'sample')
}

const isRequired = ({ type, defaultValue }: GraphQLArgument): boolean =>
  isNonNullType(type) && defaultValue === undefined

/** A literal for an argument of a document. */
function literal(type: GraphQLInputType, value: unknown): string {
  if (isNonNullType(type)) return literal(type.ofType, value)
  if (isListType(type)) return `[${(value as unknown[]).map((each) => literal(type.ofType, each)).join(', ')}]`
  return isEnumType(type) ? String(value) : JSON.stringify(value)
}

const call = (field: Field, values: Values): string => {
  const given = field.args
    .filter(isRequired)
    .map((argument) => `${argument.name}: ${literal(argument.type, sample(argument.type, argument.name, values))}`)
  return given.length ? `${field.name}(${given.join(', ')})` : field.name
}

const leaf = (field: Field): string => ('getFields' in getNamedType(field.type) || isAbstractType(getNamedType(field.type)) ? ' { __typename }' : '') // prettier-ignore

/** The selection that asks for these fields of one type, all of one path, below the base. */
export function selection(probes: readonly [Probe, ...Probe[]], values: Values): string {
  const own = probes.map(({ field }) => call(field, values) + leaf(field)).join(' ')
  return probes[0].path.reduceRight(
    (inner, { field, on }) => `${call(field, values)} { ${on ? `... on ${on} { ${inner} }` : inner} }`,
    own,
  )
}

type Way = { base: string; path: Probe['path']; rules: (Declared | null)[] }

/** The shortest way to every object type that reads lead to; rows of nodes are reached by their id. */
function ways(schema: GraphQLSchema): Map<string, Way> {
  const found = new Map<string, Way>([['Query', { base: 'Query', path: [], rules: [] }]])
  const node = schema.getQueryType()?.getFields()['node']
  const types = Object.values(schema.getTypeMap()).filter((type) => isObjectType(type))
  for (const type of types)
    if (isNode(type)) found.set(type.name, { base: type.name, path: [], rules: [node ? declaredOn(node) : null] })
  for (const [name, way] of found) {
    const type = schema.getType(name)
    if (!isObjectType(type)) continue
    for (const field of Object.values(type.getFields())) {
      const named = getNamedType(field.type)
      const abstract = isAbstractType(named)
      const nexts = abstract ? (name === 'Query' && field.name === 'node' ? [] : schema.getPossibleTypes(named)) : isObjectType(named) ? [named] : [] // prettier-ignore
      for (const next of nexts) {
        if (found.has(next.name)) continue
        const step = { field, on: abstract ? next.name : null }
        found.set(next.name, { base: way.base, path: [...way.path, step], rules: [...way.rules, declaredOn(field)] })
      }
    }
  }
  return found
}

/** A probe for every field of every object type that reads lead to, and the types that only writes lead to. */
export function probesOf(schema: GraphQLSchema): { probes: Probe[]; ofWrites: GraphQLObjectType[] } {
  const found = ways(schema)
  const probes: Probe[] = []
  const ofWrites: GraphQLObjectType[] = []
  for (const type of Object.values(schema.getTypeMap())) {
    if (!isObjectType(type) || type.name.startsWith('__') || type === schema.getMutationType()) continue
    const way = found.get(type.name)
    if (!way) ofWrites.push(type)
    else
      for (const field of Object.values(type.getFields()))
        probes.push({ type: type.name, field, base: way.base, path: way.path, rules: [...way.rules, declaredOn(field)] }) // prettier-ignore
  }
  return { probes, ofWrites }
}

/** Probes that one document can ask together, since the same things are required of who asks. */
export function grouped(probes: readonly Probe[]): [Probe, ...Probe[]][] {
  const groups = new Map<string, [Probe, ...Probe[]]>()
  for (const probe of probes) {
    const key = JSON.stringify([probe.type, probe.base, ...probe.rules.map((rule) => rule && [rule.public, rule.scopes, rule.role, rule.stepUp, rule.row?.name])]) // prettier-ignore
    const group = groups.get(key)
    if (group) group.push(probe)
    else groups.set(key, [probe])
  }
  return [...groups.values()]
}
