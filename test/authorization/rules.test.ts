import SchemaBuilder from '@pothos/core'
import { isInputObjectType, isInterfaceType, isObjectType, parse, subscribe, type GraphQLSchema } from 'graphql'
import { describe, expect, it } from 'vitest'
import { builder as real } from '../../src/graphql/builder.ts'
import { inherited, ruleOf } from '../../src/graphql/rules.ts'
import { anonymous, member } from '../../src/kernel/actor.ts'
import { isPublic, scope } from '../../src/kernel/rule.ts'
import { buildSchema } from '../../src/schema.ts'

/** A builder of its own with the real one's options and plugins. */
const fresh = () => {
  const builder = new SchemaBuilder<typeof real.$inferSchemaTypes>(real.options)
  builder.queryType({ fields: (t) => ({ fine: t.string({ rule: isPublic, resolve: () => '' }) }) })
  return builder
}
type Builder = ReturnType<typeof fresh>
async function* never(): AsyncGenerator<string> {}

const unruled: [what: string, named: string, add: (builder: Builder) => void][] = [
  ['a query', 'Query.bare has no rule', (b) => b.queryField('bare', (t) => t.string({ resolve: () => '' }))],
  ['a subscription', 'Subscription.bare has no rule', (b) => b.subscriptionType({ fields: (t) => ({ bare: t.string({ subscribe: () => never(), resolve: () => '' }) }) })],
  ['a subscription that inherits', 'Subscription.bare is a root field', (b) => b.subscriptionType({ fields: (t) => ({ bare: t.string({ rule: inherited, subscribe: () => never(), resolve: () => '' }) }) })],
  ['a mutation', 'Mutation.bare has no rule', (b) => { b.mutationType({}); b.mutationField('bare', (t) => t.string({ resolve: () => '' })) }],
  ['a field of an object', 'Thing.bare has no rule', (b) => b.objectRef<object>('Thing').implement({ fields: (t) => ({ bare: t.string({ resolve: () => '' }) }) })],
  ['a field of an interface', 'Shape.bare has no rule', (b) => b.interfaceRef<object>('Shape').implement({ fields: (t) => ({ bare: t.string({}) }) })],
  ['an exposed column', 'Service.slug has no rule', (b) => b.prismaObject('Service', { fields: (t) => ({ slug: t.exposeString('slug') }) })],
  ['a connection', 'Query.bares has no rule', (b) => {
    const Service = b.prismaObject('Service', { fields: (t) => ({ slug: t.exposeString('slug', { rule: inherited }) }) })
    b.queryField('bares', (t) => t.prismaConnection({ type: Service, cursor: 'id', resolve: () => [] }))
  }],
  ['a relation', 'Service.organization has no rule', (b) => {
    b.prismaObject('Organization', { fields: (t) => ({ slug: t.exposeString('slug', { rule: inherited }) }) })
    b.prismaObject('Service', { fields: (t) => ({ organization: t.relation('organization') }) })
  }],
  ['an argument', 'Query.ruled(bare:) has no rule', (b) => b.queryField('ruled', (t) => t.string({ rule: isPublic, args: { bare: t.arg.string() }, resolve: () => '' }))],
  ['an input field', 'BareInput.bare has no rule', (b) => {
    const input = b.inputType('BareInput', { fields: (t) => ({ bare: t.string() }) })
    b.queryField('ruled', (t) => t.string({ rule: isPublic, args: { input: t.arg({ type: input, rule: inherited }) }, resolve: () => '' }))
  }],
  ['a root field that inherits', 'Query.bare is a root field', (b) => b.queryField('bare', (t) => t.string({ rule: inherited, resolve: () => '' }))],
  ['a mutation that inherits', 'Mutation.bare is a root field', (b) => { b.mutationType({}); b.mutationField('bare', (t) => t.string({ rule: inherited, resolve: () => '' })) }],
] // prettier-ignore

/** Everything of a schema that a caller can name, by its coordinate. */
function* coordinates(schema: GraphQLSchema): Generator<[string, { extensions: object }]> {
  for (const type of Object.values(schema.getTypeMap())) {
    if (type.name.startsWith('__')) continue
    if (isObjectType(type) || isInterfaceType(type))
      for (const field of Object.values(type.getFields())) {
        yield [`${type.name}.${field.name}`, field]
        for (const argument of field.args) yield [`${type.name}.${field.name}(${argument.name}:)`, argument]
      }
    if (isInputObjectType(type))
      for (const field of Object.values(type.getFields())) yield [`${type.name}.${field.name}`, field]
  }
}

describe('the build of the schema', () => {
  it('passes with a rule on everything', () => expect(() => fresh().toSchema()).not.toThrow())

  it.each(unruled)('fails for %s, and names it', (_what, named, add) => {
    const builder = fresh()
    expect(() => {
      add(builder)
      builder.toSchema()
    }).toThrow(named)
  })
})

it('a refused subscription is not even begun', async () => {
  let begun = 0
  const builder = fresh()
  const begin = () => {
    begun += 1
    return never()
  }
  builder.subscriptionType({ fields: (t) => ({ ruled: t.string({ rule: scope('mcp:read'), nullable: true, subscribe: begin, resolve: () => '' }) }) }) // prettier-ignore
  const schema = builder.toSchema()
  const facts = { kind: 'user', userId: '', orgId: '', role: 'VIEWER', credentialId: '', mfaAt: null } as const
  const ask = (given: string[]) =>
    subscribe({ schema, document: parse('subscription { ruled }'), contextValue: { actor: member({ ...facts, given, origin: anonymous().origin }, new Date()) } }) // prettier-ignore
  expect(await ask([])).toMatchObject({ errors: [{ originalError: { code: 'FORBIDDEN' } }] })
  expect(begun).toBe(0)
  expect(await ask(['mcp:read'])).not.toHaveProperty('errors')
  expect(begun).toBe(1)
})

describe('the real schema', () => {
  const all = [...coordinates(buildSchema())]

  it('carries a rule on every field, argument and input', () => {
    expect(all.length).toBeGreaterThan(150)
    expect(all.filter(([, element]) => ruleOf(element) === undefined).map(([name]) => name)).toEqual([])
  })

  it('says its rule itself on every root field, and is public to nobody but for signing in', () => {
    const roots = all.filter(([name]) => /^(Query|Mutation)\.\w+$/.test(name))
    expect(roots.filter(([, field]) => ruleOf(field) === inherited)).toEqual([])
    const open = roots.filter(([, field]) => ruleOf(field) === isPublic).map(([name]) => name)
    expect(open.filter((name) => !openRoots.has(name))).toEqual([])
    expect(open).toEqual(expect.arrayContaining(['Mutation.signIn', 'Mutation.signUp']))
  })
})

/** What a stranger may ask: the ways to become somebody. Add one only after asking what it tells or lets be tried. */
const openRoots = new Set([
  'Query.apiVersion',
  'Mutation.signIn',
  'Mutation.signUp',
  'Mutation.sendSignInCode',
  'Mutation.startPasskeySignIn',
  'Mutation.completeSignIn',
  'Mutation.signInWithPasskey',
  'Mutation.refreshSession',
  'Mutation.acceptInvitation',
  'Mutation.requestPasswordReset',
  'Mutation.resetPassword',
  'Mutation.verifyEmail',
])
