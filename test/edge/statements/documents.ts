import { getNamedType, isNonNullType, isObjectType, type GraphQLField, type GraphQLOutputType } from 'graphql'
import { buildSchema } from '../../../src/schema.ts'
import type { Credential } from '../../harness/world.ts'

type Field = GraphQLField<unknown, unknown>
export type Kind = 'query' | 'mutation' | 'subscription'

const schema = buildSchema()
const roots = { query: schema.getQueryType(), mutation: schema.getMutationType(), subscription: schema.getSubscriptionType() } // prettier-ignore

export const rootFields = (kind: Kind): string[] => Object.keys(roots[kind]?.getFields() ?? {})

/** How long every list is asked for. */
export const page = 8

const pagedBy = ({ args }: Field): string => (args.some(({ name }) => name === 'first') ? `(first: ${page})` : '')
const isWrapping = (name: string): boolean => /Connection(Edge)?$/.test(name)

/**
 * All of a type: its own fields, those of what it leads to, and theirs, no type twice on the way down. So a field or a list
 * that is added is asked for from its first day. What upstreams are asked for (`Service.tools`) has a question of its own.
 */
function everything(type: GraphQLOutputType, depth: number, above: readonly string[]): string {
  const named = getNamedType(type)
  if (!isObjectType(named)) return ''
  const fields = Object.values(named.getFields()).flatMap((field) => {
    const below = getNamedType(field.type)
    if (field.args.some((argument) => isNonNullType(argument.type)) || below.name === 'Tool') return []
    if (!isObjectType(below)) return [field.name]
    if (above.includes(below.name) || (depth === 0 && !isWrapping(named.name))) return []
    const left = isWrapping(named.name) ? depth : depth - 1
    return [`${field.name}${pagedBy(field)} ${everything(below, left, [...above, named.name])}`]
  })
  return `{ ${fields.join(' ') || '__typename'} }`
}

export const everythingOf = (typeName: string): string => {
  const type = schema.getType(typeName)
  if (!isObjectType(type)) throw new Error(`No object type is called ${typeName}.`)
  return everything(type, 2, [])
}

/** What is asked of a root field, and by whom. What is not said comes from the schema. */
export type Asked = {
  as?: Credential
  input?: object
  /** In the place of the argument `first`. */
  given?: string
  selection?: string
  headers?: Record<string, string>
}

export function documentOf(kind: Kind, name: string, { input, given, selection }: Asked): string {
  const field = roots[kind]?.getFields()[name]
  if (!field) throw new Error(`The schema has no ${kind} ${name}.`)
  const type = field.args.find((argument) => argument.name === 'input')?.type
  const head = input && type ? `${kind} ($input: ${String(type)})` : kind
  const call = input ? '(input: $input)' : (given ?? pagedBy(field))
  return `${head} { ${name}${call} ${selection ?? everything(field.type, 2, [])} }`
}
