import { filterSchema, pruneSchema } from '@graphql-tools/utils'
import { Kind, type DocumentNode, type GraphQLFieldConfig, type GraphQLSchema, type SelectionSetNode } from 'graphql'
import { LRUCache } from 'lru-cache'
import type { Actor } from '../kernel/actor.ts'
import { freshMfaBit } from '../kernel/permissions.ts'
import { inherited, ruleOf } from './rules.ts'

const schemas = new WeakMap<GraphQLSchema, LRUCache<number, GraphQLSchema>>()

type Field = Pick<GraphQLFieldConfig<unknown, unknown>, 'extensions'>

const visible = (field: Field | undefined, permissions: number): boolean => {
  const rule = field && ruleOf({ extensions: field.extensions ?? {} })
  if (!rule) return false
  // A second factor can be given at any moment, so what only waits for one is shown.
  return rule === inherited || (permissions & rule.mask & ~freshMfaBit) === (rule.mask & ~freshMfaBit)
}

/** The schema as introspection shows it to this caller: what they may use, and nothing that only others reach. */
export function visibleSchema(schema: GraphQLSchema, { permissions }: Actor): GraphQLSchema {
  const known = schemas.get(schema) ?? new LRUCache<number, GraphQLSchema>({ max: 64 })
  schemas.set(schema, known)
  const held = permissions & ~freshMfaBit
  const hit = known.get(held)
  if (hit) return hit
  const filtered = pruneSchema(
    filterSchema({
      schema,
      rootFieldFilter: (_operation, _name, field) => visible(field, held),
      objectFieldFilter: (_type, _name, field) => visible(field, held),
      interfaceFieldFilter: (_type, _name, field) => visible(field, held),
      argumentFilter: (_type, _field, _name, argument) => visible(argument as Field, held),
    }),
  )
  known.set(held, filtered)
  return filtered
}

// A root's selections may stand within fragments without a name, one within the other.
const asksForSchema = ({ selections }: SelectionSetNode): boolean =>
  selections.some(
    (node) =>
      (node.kind === Kind.FIELD && (node.name.value === '__schema' || node.name.value === '__type')) ||
      (node.kind === Kind.INLINE_FRAGMENT && asksForSchema(node.selectionSet)),
  )

/** Whether a document asks for the schema itself. */
export const introspects = (document: DocumentNode): boolean =>
  document.definitions.some(
    (definition) =>
      (definition.kind === Kind.OPERATION_DEFINITION || definition.kind === Kind.FRAGMENT_DEFINITION) &&
      asksForSchema(definition.selectionSet),
  )
