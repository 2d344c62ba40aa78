import SchemaBuilder, {
  BasePlugin,
  type PothosInputFieldConfig,
  type PothosOutputFieldConfig,
  type SchemaTypes,
} from '@pothos/core'
import type { GraphQLFieldResolver, GraphQLResolveInfo } from 'graphql'
import { AppError } from '../kernel/errors.ts'
import { denial, holds, permitsRow, requirements, type Rule } from '../kernel/rule.ts'
import type { GraphContext } from './context.ts'

/**
 * For a field that is reached only through another one, and an argument or input of a field: the rule of what leads
 * here decides. Said aloud, like every rule; a root field cannot say it.
 */
export const inherited = Symbol('inherited')
export type FieldRule = Rule | typeof inherited

/** What a page of a list can hold at the most; asking for more is an error, not a silent cut. */
export const maxPageSize = 100
export const defaultPageSize = 20
/** What a plain list is taken to hold where it does not say. */
export const defaultListSize = 10

/** How sensitive a value is; handling follows from it (docs/authorization.md). */
export type DataClass = 'public' | 'internal' | 'personal' | 'secret'

/** Weight of one resolution and, for plain lists, the most items it can give. */
export type Cost = { weight?: number; assumedSize?: number }

declare global {
  // eslint-disable-next-line @typescript-eslint/no-namespace -- the way Pothos plugins declare their options
  export namespace PothosSchemaTypes {
    export interface FieldOptions {
      /** Who may read this field. The build fails without one. */
      rule?: FieldRule
      cost?: Cost
      /** Default: `internal`, what members of an organisation share. */
      dataClass?: DataClass
      /** The field makes the request act as somebody else (sign-in), so what is below it is judged when it resolves. */
      changesActor?: boolean
    }
    export interface InputFieldOptions {
      /** Who may give this value. The build fails without one. */
      rule?: FieldRule
    }

    export interface Plugins<Types extends SchemaTypes> {
      rules: RulesPlugin<Types>
    }
  }
}

export type FieldExtensions = { rule?: FieldRule; cost?: Cost; dataClass?: DataClass; changesActor?: boolean }

const roots = new Set(['Query', 'Mutation', 'Subscription'])

/** The rule that a built field carries. */
export const ruleOf = (field: { extensions: object }): FieldRule | undefined =>
  (field.extensions as FieldExtensions).rule

function directivesOf(rule: FieldRule): Record<string, object> {
  if (rule === inherited || rule.public) return {}
  const { scopes, ...policies } = requirements(rule) as {
    scopes?: string[]
    role?: string
    stepUp?: boolean
    policy?: string
  }
  const names = [policies.role && `role:${policies.role}`, policies.stepUp && 'stepUp', policies.policy].filter(Boolean)
  return {
    authenticated: {},
    ...(scopes ? { requiresScopes: { scopes: [scopes] } } : {}),
    ...(names.length ? { policy: { policies: [names] } } : {}),
  }
}

type CostedField = { name: string; args: object; type: { kind: string; type?: { kind: string } | undefined } }

/** `@cost` and `@listSize` (GraphQL cost specification), from what the analysis itself counts by. */
function costDirectivesOf({ name, args, type }: CostedField, cost: Cost | undefined): Record<string, object> {
  const weight = cost?.weight === undefined ? {} : { cost: { weight: String(cost.weight) } }
  if ('first' in args) {
    const slicingArguments = ['first', 'last']
    const page = { assumedSize: defaultPageSize, slicingArguments, sizedFields: ['edges'], requireOneSlicingArgument: false } // prettier-ignore
    return { ...weight, listSize: page }
  }
  const isObjects = type.kind === 'List' && type.type?.kind !== 'Scalar' && type.type?.kind !== 'Enum'
  if (!isObjects || name === 'edges') return weight
  return { ...weight, listSize: { assumedSize: cost?.assumedSize ?? defaultListSize } }
}

type Resolver = GraphQLFieldResolver<unknown, GraphContext>

/** The resolver behind the field's rule. Synchronous, and one comparison of bits: thousands of fields pass here in a request. */
function guarded(config: { parentType: string; extensions?: unknown }, resolve: Resolver): Resolver {
  const { rule } = config.extensions as FieldExtensions
  if (!rule || rule === inherited || rule.public) return resolve
  // A mutation's row is known to its operation alone, which asks the policy when it has found it.
  const byRow = rule.row !== null && !roots.has(config.parentType)
  if (byRow || rule.platform)
    return (parent, args, context, info) => {
      const { actor } = context
      if (holds(actor, rule) && (!byRow || permitsRow(actor, rule, parent))) return resolve(parent, args, context, info)
      throw unauthorized(context, info)
    }
  const { mask } = rule
  return (parent, args, context, info) => {
    if ((context.actor.permissions & mask) === mask) return resolve(parent, args, context, info)
    throw unauthorized(context, info)
  }
}

type Selection = (args: unknown, context: GraphContext, ...rest: unknown[]) => object

/** A selection that loads nothing for a caller whom the field refuses, so that what is denied is not even read. */
function loadedIfPermitted(extensions: Readonly<Record<string, unknown>>, rule: Rule): object {
  const selection = extensions['pothosPrismaSelect']
  if (!selection) return {}
  const select: Selection = typeof selection === 'function' ? (selection as Selection) : () => ({ select: selection })
  const narrowed: Selection = (args, context, ...rest) =>
    holds(context.actor, rule) ? select(args, context, ...rest) : { select: {} }
  return { pothosPrismaSelect: narrowed }
}

/**
 * Turns each field's `rule` into what enforces and shows it: the check before its resolver, the directives
 * of the printed schema, and the extension that the analysis, the documentation and the tests read.
 * A field or argument without a rule stops the build.
 */
class RulesPlugin<Types extends SchemaTypes> extends BasePlugin<Types> {
  override onOutputFieldConfig(config: PothosOutputFieldConfig<Types>): PothosOutputFieldConfig<Types> {
    const options = config.pothosOptions as PothosOutputFieldConfig<Types>['pothosOptions'] & FieldExtensions
    const name = `${config.parentType}.${config.name}`
    const { rule, cost, dataClass, changesActor } = options
    if (rule === undefined)
      throw new Error(`${name} has no rule. Say who may read it: rule: scope('…'), inherited or isPublic.`)
    if (rule === inherited && roots.has(config.parentType))
      throw new Error(`${name} is a root field, so nothing leads to it: it needs a rule of its own.`)
    const isRoot = roots.has(config.parentType)
    if (isRoot && config.parentType !== 'Mutation' && rule !== inherited && rule.row)
      throw new Error(`${name} is a root field, so there is no row for the policy ${rule.row.name} to judge.`)
    return {
      ...config,
      extensions: {
        ...config.extensions,
        ...(rule === inherited ? {} : loadedIfPermitted(config.extensions ?? {}, rule)),
        rule,
        directives: {
          ...(config.extensions?.['directives'] as object),
          ...directivesOf(rule),
          ...costDirectivesOf(config as unknown as CostedField, cost),
        },
        ...(cost ? { cost } : {}),
        ...(dataClass ? { dataClass } : {}),
        ...(changesActor ? { changesActor } : {}),
      },
    } as PothosOutputFieldConfig<Types>
  }

  // This plugin is the builder's first, so its check is the outermost: what is refused runs nothing and loads nothing.
  override wrapResolve(
    resolve: GraphQLFieldResolver<unknown, Types['Context'], object>,
    config: PothosOutputFieldConfig<Types>,
  ): GraphQLFieldResolver<unknown, Types['Context'], object> {
    return guarded(config, resolve as Resolver) as typeof resolve
  }

  override wrapSubscribe(
    subscribe: GraphQLFieldResolver<unknown, Types['Context'], object> | undefined,
    config: PothosOutputFieldConfig<Types>,
  ): GraphQLFieldResolver<unknown, Types['Context'], object> | undefined {
    return subscribe && (guarded(config, subscribe as Resolver) as typeof subscribe)
  }

  override onInputFieldConfig(config: PothosInputFieldConfig<Types>): PothosInputFieldConfig<Types> {
    const { rule } = config.pothosOptions as FieldExtensions
    const name = config.parentField
      ? `${config.parentType}.${config.parentField}(${config.name}:)`
      : `${config.parentType}.${config.name}`
    if (rule === undefined)
      throw new Error(`${name} has no rule. Say who may give it: rule: inherited, or a scope of its own.`)
    if (rule !== inherited && !config.parentField)
      throw new Error(`${name} is part of an input object: give the argument that takes it a rule of its own instead.`)
    return {
      ...config,
      extensions: {
        ...config.extensions,
        rule,
        directives: { ...(config.extensions?.['directives'] as object), ...directivesOf(rule) },
      },
    }
  }
}

SchemaBuilder.registerPlugin('rules', RulesPlugin)

/** The error of a refused field, made from the field's own rule. */
function unauthorized(context: GraphContext, info: GraphQLResolveInfo): AppError {
  const field = info.parentType.getFields()[info.fieldName]
  const rule = field && ruleOf(field)
  if (!rule || rule === inherited) return new AppError('FORBIDDEN', 'Your credential does not permit this.')
  const error = denial(context.actor, rule)
  const { dataClass } = field.extensions as FieldExtensions
  if (dataClass === 'personal' || dataClass === 'secret')
    context.denials.set(`${info.parentType.name}.${info.fieldName}`, error)
  return error
}
