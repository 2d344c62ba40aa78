import type { GeneratorValue } from 'fast-check'
import * as fc from 'fast-check'
import {
  getNamedType,
  isCompositeType,
  isEnumType,
  isNonNullType,
  isObjectType,
  type GraphQLArgument,
  type GraphQLField,
  type GraphQLObjectType,
  type GraphQLSchema,
} from 'graphql'
import { encodeNodeId } from '../../src/kernel/nodeId.ts'
import { isNode } from './probes.ts'

/** What random arguments are drawn from: rows of everybody, of either organisation. */
export type Known = {
  ids: ReadonlyMap<string, readonly string[]>
  slugs: readonly string[]
  userIds: readonly string[]
}

// Asks an upstream server, or reads documents instead of rows.
const apart = new Set(['tools', 'minimalScopes', 'clientConfiguration'])

export const oneOf = <T>(g: GeneratorValue, list: readonly T[]): T | undefined =>
  list.length ? list[g(fc.nat, { max: list.length - 1 })] : undefined
const cursorOf = (id: string): string => Buffer.from(`GPC:S:${id}`).toString('base64')
const likely = (g: GeneratorValue): boolean => g(fc.integer, { min: 0, max: 3 }) > 0

function valueOf(g: GeneratorValue, { name, type }: GraphQLArgument, known: Known, nodes: readonly string[]): string | null {
  const named = getNamedType(type)
  const quoted = (value: string | undefined): string | null => (value === undefined ? null : JSON.stringify(value))
  if (name === 'first' || name === 'last') return null
  if (name === 'after' || name === 'before') return quoted(oneOf(g, nodes.map(cursorOf)))
  if (name === 'slug' || name === 'service') return quoted(oneOf(g, known.slugs))
  if (name === 'userId') return quoted(oneOf(g, known.userIds))
  if (isEnumType(named)) return oneOf(g, named.getValues())?.name ?? null
  if (named.name === 'DateTime') return quoted(oneOf(g, ['2025-12-31T00:00:00Z', '2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z']))
  return named.name === 'String' ? quoted('sample') : null
} // prettier-ignore

/** Arguments that Prisma takes together: one direction, and a cursor on its side of the page. */
function argumentsOf(g: GeneratorValue, field: GraphQLField<unknown, unknown>, known: Known, nodes: readonly string[]): string | null {
  const given: string[] = []
  const paged = field.args.some(({ name }) => name === 'first')
  const forward = g(fc.boolean)
  if (paged) given.push(`${forward ? 'first' : 'last'}: ${g(fc.integer, { min: 0, max: 6 })}`)
  for (const argument of field.args) {
    if (argument.name === (forward ? 'before' : 'after') || (!isNonNullType(argument.type) && likely(g))) continue
    const value = valueOf(g, argument, known, nodes)
    if (value !== null) given.push(`${argument.name}: ${value}`)
    else if (isNonNullType(argument.type)) return null
  }
  return given.length ? `(${given.join(', ')})` : ''
} // prettier-ignore

/** The type of row that a connection's edges lead to. */
function rowType(field: GraphQLField<unknown, unknown>): string {
  const page = getNamedType(field.type)
  const edge = isObjectType(page) && page.getFields()['edges']
  const edges = edge && getNamedType(edge.type)
  const node = edges && isObjectType(edges) ? edges.getFields()['node'] : undefined
  return node ? getNamedType(node.type).name : getNamedType(field.type).name
}

function fieldOf(g: GeneratorValue, field: GraphQLField<unknown, unknown>, known: Known, depth: number): string | null {
  const type = getNamedType(field.type)
  if (apart.has(field.name) || (isCompositeType(type) && depth === 0)) return null
  const args = argumentsOf(g, field, known, known.ids.get(rowType(field)) ?? [])
  if (args === null) return null
  return `${field.name}${args}${isObjectType(type) ? ` ${selectionOf(g, type, known, depth - 1)}` : ''}`
}

function selectionOf(g: GeneratorValue, type: GraphQLObjectType, known: Known, depth: number): string {
  const isPage = 'edges' in type.getFields() || 'cursor' in type.getFields()
  const fields = Object.values(type.getFields()).flatMap((field) => {
    // Edges and pages are the way, not the aim.
    if (!isPage && !likely(g)) return []
    return fieldOf(g, field, known, isPage ? depth + 1 : depth) ?? []
  })
  return `{ ${['__typename', ...fields].join(' ')} }`
}

/** One random question: a row by its id, or a root field with whatever lies below. */
export function randomQuery(g: GeneratorValue, schema: GraphQLSchema, known: Known): string {
  const nodes = Object.values(schema.getTypeMap()).filter((type): type is GraphQLObjectType => isObjectType(type) && isNode(type)) // prettier-ignore
  if (g(fc.boolean)) {
    const type = oneOf(g, nodes)
    const id = type && oneOf(g, known.ids.get(type.name) ?? [])
    if (type && id) return `node(id: "${encodeNodeId(type.name, id)}") { ... on ${type.name} ${selectionOf(g, type, known, 2)} }` // prettier-ignore
  }
  const roots = Object.values(schema.getQueryType()?.getFields() ?? {}).filter(({ name }) => name !== 'node' && !apart.has(name)) // prettier-ignore
  const field = oneOf(g, roots)
  return (field && fieldOf(g, field, known, 3)) ?? 'apiVersion'
}
