import {
  getNamedType,
  getNullableType,
  isCompositeType,
  isEnumType,
  isInputObjectType,
  isListType,
  isObjectType,
  isNonNullType,
  type GraphQLField,
  type GraphQLInputType,
  type GraphQLOutputType,
  type GraphQLSchema,
} from 'graphql'

const isRequired = ({ type, defaultValue }: { type: GraphQLInputType; defaultValue?: unknown }): boolean =>
  isNonNullType(type) && defaultValue === undefined

/** A root field with one place for an id or a slug, and a document that puts a value there. */
export type Attack = {
  name: string
  takes: 'id' | 'slug'
  document: string
  variables: (value: string) => Record<string, unknown>
}

/**
 * What a value of another name is (`name`, or `mutation.name` for one place alone), so that nothing but the id decides the
 * answer. Read when an attack is sent.
 */
export const samples: Record<string, unknown> = {
  token: 'tok-1234567890abcdef',
  tool: 'echo',
  hash: '0'.repeat(64),
  name: 'renamed',
  access: 'READ',
  endpoint: 'https://upstream.example/mcp',
  issuer: 'https://issuer.example',
  state: 's'.repeat(43),
  email: 'nobody@example.com',
  password: 'none',
}
const byType: Record<string, unknown> = {
  String: 'sample',
  Boolean: true,
  Int: 1,
  JSON: {},
  DateTime: '2999-01-01T00:00:00Z',
}

function sample(name: string, type: GraphQLInputType): unknown {
  const named = getNamedType(type)
  const one =
    name === 'scopes' ? 'mcp:read'
    : name in samples ? samples[name]
    : isEnumType(named) ? named.getValues()[0]?.name
    : isInputObjectType(named) ? Object.fromEntries(Object.values(named.getFields()).filter(isRequired).map((f) => [f.name, sample(f.name, f.type)]))
    : byType[named.name] // prettier-ignore
  return isListType(getNullableType(type)) ? [one] : one
}

const kindOf = (name: string, type: GraphQLInputType): Attack['takes'] | null => {
  const named = getNamedType(type).name
  if (named === 'ID') return 'id'
  return named === 'String' && ['slug', 'service', 'organization'].includes(name) ? 'slug' : null
}

function selection(type: GraphQLOutputType): string {
  const named = getNamedType(type)
  if (isObjectType(named) && 'edges' in named.getFields()) return '{ edges { cursor } }'
  return isCompositeType(named) ? '{ __typename }' : ''
}
const put = (type: GraphQLInputType, value: string): unknown => (isListType(getNullableType(type)) ? [value] : value)

function* attacksOn(kind: string, field: GraphQLField<unknown, unknown>): Generator<Attack> {
  for (const target of field.args) {
    const others = field.args.filter((arg) => arg !== target && isRequired(arg))
    const all = [target, ...others]
    const document = `${kind} (${all.map((arg) => `$${arg.name}: ${String(arg.type)}`).join(', ')}) { ${field.name}(${all.map((arg) => `${arg.name}: $${arg.name}`).join(', ')}) ${selection(field.type)} }`
    const fixed = () => Object.fromEntries(others.map((arg) => [arg.name, sample(arg.name, arg.type)]))
    const takes = kindOf(target.name, target.type)
    if (takes)
      yield {
        name: `${field.name}(${target.name})`,
        takes,
        document,
        variables: (value) => ({ ...fixed(), [target.name]: put(target.type, value) }),
      }
    const input = getNamedType(target.type)
    if (!isInputObjectType(input)) continue
    const fields = Object.values(input.getFields())
    for (const inner of fields) {
      const takesInner = kindOf(inner.name, inner.type)
      if (!takesInner) continue
      const rest = fields.filter((each) => each !== inner && (isRequired(each) || each.name in samples))
      const values = () =>
        Object.fromEntries(
          rest.map((each) => [each.name, samples[`${field.name}.${each.name}`] ?? sample(each.name, each.type)]),
        )
      const variables: Attack['variables'] = (value) => ({
        ...fixed(),
        [target.name]: { ...values(), [inner.name]: put(inner.type, value) },
      })
      yield { name: `${field.name}(${target.name}.${inner.name})`, takes: takesInner, document, variables }
    }
  }
}

// A slug is given here, not looked up.
const makesSlugs = new Set(['createService', 'enableHostedService', 'publishCollection'])

/** Every place of the schema's root fields that takes an id or a slug; a new one is attacked from its first day. */
export const everyAttack = (schema: GraphQLSchema): Attack[] =>
  [['query', schema.getQueryType()] as const, ['mutation', schema.getMutationType()] as const].flatMap(([kind, type]) =>
    Object.values(type?.getFields() ?? {}).flatMap((field) =>
      makesSlugs.has(field.name) ? [] : [...attacksOn(kind, field)],
    ),
  )

// Asks an upstream server.
const calling = new Set(['tools'])

function everything(type: GraphQLOutputType, depth: number): string {
  const named = getNamedType(type)
  if (!isObjectType(named)) return isCompositeType(named) ? '{ __typename }' : ''
  const fields = Object.values(named.getFields()).flatMap((field) => {
    if (calling.has(field.name) || field.args.some(isRequired)) return []
    if (isCompositeType(getNamedType(field.type)) && depth === 0) return []
    const page = field.args.some(({ name }) => name === 'first') ? '(first: 20)' : ''
    return [`${field.name}${page} ${everything(field.type, depth - 1)}`]
  })
  return `{ ${fields.join(' ')} }`
}

/** A document for each root query that needs no argument, with all that can be seen from there. */
export const everyList = (schema: GraphQLSchema): Record<string, string> =>
  Object.fromEntries(
    Object.values(schema.getQueryType()?.getFields() ?? {})
      .filter(({ args }) => !args.some(isRequired))
      .map(({ name, args, type }) => [name, `query { ${name}${args.some((arg) => arg.name === 'first') ? '(first: 20)' : ''} ${everything(type, 4)} }`]),
  ) // prettier-ignore
