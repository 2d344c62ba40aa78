import {
  getNamedType,
  isCompositeType,
  isLeafType,
  Kind,
  type DocumentNode,
  type FieldNode,
  type FragmentDefinitionNode,
  type GraphQLCompositeType,
  type GraphQLSchema,
  type OperationDefinitionNode,
  type SelectionSetNode,
} from 'graphql'
import type { FieldExtensions } from './rules.ts'

type Walk = { schema: GraphQLSchema; fragments: ReadonlyMap<string, FragmentDefinitionNode> }

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null

function costOfField(walk: Walk, node: FieldNode, parent: GraphQLCompositeType, data: Record<string, unknown>): number {
  const field = 'getFields' in parent ? parent.getFields()[node.name.value] : undefined
  const value = data[node.alias?.value ?? node.name.value]
  // A field that is not in the answer belongs to another type of an interface.
  if (!field || value === undefined) return 0
  const type = getNamedType(field.type)
  const weight = (field.extensions as FieldExtensions).cost?.weight ?? (isLeafType(type) ? 0 : 1)
  if (!node.selectionSet || !isCompositeType(type)) return weight
  const { selectionSet } = node
  const items = Array.isArray(value) ? (value as unknown[]) : [value]
  return items.reduce<number>(
    (sum, item) => sum + (isObject(item) ? costOf(walk, selectionSet, type, item) : 0),
    weight,
  )
}

function costOf(
  walk: Walk,
  set: SelectionSetNode,
  parent: GraphQLCompositeType,
  data: Record<string, unknown>,
): number {
  let total = 0
  for (const node of set.selections) {
    if (node.kind === Kind.FIELD) {
      total += costOfField(walk, node, parent, data)
      continue
    }
    const fragment = node.kind === Kind.INLINE_FRAGMENT ? node : walk.fragments.get(node.name.value)
    const name = fragment?.typeCondition?.name.value
    const type = name ? walk.schema.getType(name) : parent
    if (fragment && isCompositeType(type)) total += costOf(walk, fragment.selectionSet, type, data)
  }
  return total
}

/** What an answer turned out to cost, by the weights that its operation was estimated with; never more than the estimate. */
export function actualCost(
  schema: GraphQLSchema,
  document: DocumentNode,
  operation: OperationDefinitionNode,
  data: unknown,
): number {
  const root = schema.getRootType(operation.operation)
  if (!root || !isObject(data)) return 0
  const fragments = new Map(
    document.definitions.flatMap((node) =>
      node.kind === Kind.FRAGMENT_DEFINITION ? [[node.name.value, node] as const] : [],
    ),
  )
  return costOf({ schema, fragments }, operation.selectionSet, root, data)
}
