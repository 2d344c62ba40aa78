import {
  execute,
  getVariableValues,
  GraphQLError,
  Kind,
  OperationTypeNode,
  type OperationDefinitionNode,
  type ExecutionArgs,
  type ExecutionResult,
  type GraphQLSchema,
} from 'graphql'
import { actualCost } from '../graphql/actualCost.ts'
import type { Analysis } from '../graphql/analysis.ts'
import { GraphContext, type CookieJar } from '../graphql/context.ts'
import { inherited, ruleOf } from '../graphql/rules.ts'
import { visibleSchema } from '../graphql/visibility.ts'
import type { Actor } from '../kernel/actor.ts'
import { AppError } from '../kernel/errors.ts'
import type { Platform } from '../kernel/platform.ts'
import { denial, holds } from '../kernel/rule.ts'
import { nameMethods } from '../modules/accounts/factorsLacking.ts'
import { recordDenials } from './denials.ts'
import { translate } from './failures.ts'
import type { GraphQLRequest } from './graphqlRequest.ts'
import type { KnownDocument } from './knownDocuments.ts'
import { charge } from './limits.ts'

/** What a GraphQL request brings beside its document. */
export type ServerContext = { actor: Actor; input: GraphQLRequest; cookies: CookieJar }

export const rethrown = (error: AppError): GraphQLError => new GraphQLError(error.message, { originalError: error })

/** Refuses before anything runs what every root field would refuse, and a registered operation whose scopes a key lacks. */
function admit(
  schema: GraphQLSchema,
  known: KnownDocument,
  operationName: string | undefined,
  { actor, input }: ServerContext,
): void {
  const lacking = input.persisted?.requiredScopes.filter((scope) => !actor.scopes.some((held) => held === scope)) ?? []
  if (actor.kind === 'apiKey' && lacking.length)
    throw new AppError('FORBIDDEN', 'This key lacks scopes that the operation needs.', {
      extensions: { requires: { scopes: lacking } },
    })
  if (actor.kind !== 'anonymous') return
  const operation = known.operation(operationName)
  const fields = schema.getRootType(operation.operation)?.getFields() ?? {}
  const denials = operation.selectionSet.selections.map((node) => {
    const rule =
      node.kind === Kind.FIELD
        ? fields[node.name.value] && ruleOf(fields[node.name.value] as object as { extensions: object })
        : undefined
    return rule && rule !== inherited && !holds(actor, rule) ? denial(actor, rule) : null
  })
  if (denials.length && denials[0] && denials.every(Boolean)) throw denials[0]
}

/** The errors of a request, those for want of a second factor completed with what would do. */
async function named(platform: Platform, actor: Actor, errors: readonly GraphQLError[]): Promise<GraphQLError[]> {
  const before = errors.map((error) => translate(error))
  const after = await nameMethods(platform, actor, before)
  return errors.map((raw, i) =>
    after[i] && after[i] !== before[i]
      ? new GraphQLError(after[i].message, {
          nodes: raw.nodes ?? null,
          path: raw.path ?? null,
          originalError: after[i],
        })
      : raw,
  )
}

type Call = Pick<ExecutionArgs, 'variableValues' | 'operationName'>

/** What is decided before anything runs: rules of arguments, exact cost, and who pays for it. */
async function prepare(
  platform: Platform,
  schema: GraphQLSchema,
  known: KnownDocument,
  { operationName, variableValues }: Call,
  server: ServerContext,
): Promise<{ operation: OperationDefinitionNode; analysis: Analysis; remaining: number | null } | ExecutionResult> {
  const name = operationName ?? undefined
  admit(schema, known, name, server)
  const operation = known.operation(name)
  const { coerced, errors } = getVariableValues(schema, operation.variableDefinitions ?? [], variableValues ?? {})
  if (errors) return { errors }
  const analysis = known.analyse(schema, name, coerced)
  const refusing = analysis.argumentRules.find((rule) => !holds(server.actor, rule))
  if (refusing) throw denial(server.actor, refusing)
  const remaining = await charge(platform, server.actor, analysis.cost)
  return { operation, analysis, remaining }
}

/** Runs one operation of a document that has passed validation: rules and cost first, then as the caller. */
export async function runOperation(
  ...[platform, schema, known, call, server, signal, operationId]: Parameters<typeof ranOperation>
): Promise<ExecutionResult> {
  const { tracing } = platform
  if (!tracing) return ranOperation(platform, schema, known, call, server, signal, operationId)
  const span = tracing.piece(server.actor.origin, 'INTERNAL', 'graphql', {})
  const result = await ranOperation(platform, schema, known, call, server, signal, operationId)
  const { cost, statements } = (result.extensions ?? {}) as { cost?: { requested: number }; statements?: number }
  const [error] = result.errors ?? []
  span.end(
    {
      ...operationNames(known, call),
      ...(cost ? { 'mcp_platform.cost': cost.requested } : {}),
      ...(statements === undefined ? {} : { 'mcp_platform.statements': statements }),
    },
    error ? translate(error).code : null,
  )
  return result
}

/** What an operation is called, where its document has one of that name. */
function operationNames(known: KnownDocument, { operationName }: Call): Record<string, string> {
  try {
    const { operation, name } = known.operation(operationName ?? undefined)
    return { 'graphql.operation.type': operation, ...(name ? { 'graphql.operation.name': name.value } : {}) }
  } catch {
    return {}
  }
}

async function ranOperation(
  platform: Platform,
  schema: GraphQLSchema,
  known: KnownDocument,
  call: Call,
  server: ServerContext,
  signal: AbortSignal,
  /** Of a registered operation that was found in memory: the database is to confirm it. */
  operationId?: string,
): Promise<ExecutionResult> {
  let prepared: Awaited<ReturnType<typeof prepare>>
  try {
    prepared = await prepare(platform, schema, known, call, server)
  } catch (error) {
    return { errors: [rethrown(translate(error))] }
  }
  if (!('analysis' in prepared)) return prepared
  const { operation, analysis, remaining } = prepared
  const context = new GraphContext(platform, server.actor, signal, server.cookies, operationId)
  try {
    const seen = known.introspects ? visibleSchema(schema, server.actor) : schema
    const result = await execute({ ...call, document: known.document, schema: seen, contextValue: context })
    // A question that no statement answered has not met the database yet, and so would pass with a credential that ended.
    if (operation.operation === OperationTypeNode.QUERY) await context.confirm()
    await recordDenials(context)
    return {
      ...result,
      ...(result.errors ? { errors: await named(platform, context.actor, result.errors) } : {}),
      extensions: {
        ...result.extensions,
        cost: {
          requested: analysis.cost,
          actual: actualCost(schema, known.document, operation, result.data),
          remaining,
        },
        statements: context.statements,
      },
    }
  } catch (error) {
    return { errors: [rethrown(translate(error))] }
  } finally {
    await context.close()
  }
}

/** Why a subscription does not begin: everything that stands before an operation runs. Nothing, where it may. */
export async function refusalOf(
  platform: Platform,
  schema: GraphQLSchema,
  known: KnownDocument,
  call: Call,
  server: ServerContext,
): Promise<ExecutionResult | undefined> {
  try {
    const prepared = await prepare(platform, schema, known, call, server)
    return 'analysis' in prepared ? undefined : prepared
  } catch (error) {
    return { errors: [rethrown(translate(error))] }
  }
}
