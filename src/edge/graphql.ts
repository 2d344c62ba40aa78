import { EnvelopArmorPlugin } from '@escape.tech/graphql-armor'
import {
  execute,
  getVariableValues,
  GraphQLError,
  OperationTypeNode,
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  type GraphQLSchema,
  type OperationDefinitionNode,
} from 'graphql'
import { createYoga, type Plugin } from 'graphql-yoga'
import { actualCost } from '../graphql/actualCost.ts'
import { analyse, operationOf, type Analysis } from '../graphql/analysis.ts'
import { boundExpansion } from '../graphql/expansion.ts'
import { GraphContext, type CookieJar } from '../graphql/context.ts'
import { inherited, ruleOf } from '../graphql/rules.ts'
import { introspects, visibleSchema } from '../graphql/visibility.ts'
import type { Actor } from '../kernel/actor.ts'
import { AppError } from '../kernel/errors.ts'
import type { Platform } from '../kernel/platform.ts'
import { denial, holds } from '../kernel/rule.ts'
import { Kind } from 'graphql'
import { nameMethods } from '../modules/accounts/factorsLacking.ts'
import { readJar, setCookieHeader } from './cookies.ts'
import { recordDenials } from './denials.ts'
import { present, report, translate } from './failures.ts'
import { charge } from './limits.ts'
import { cacheable } from './cacheable.ts'
import { readGraphQLRequest, type GraphQLRequest } from './graphqlRequest.ts'

type ServerContext = { actor: Actor; input: GraphQLRequest; cookies: CookieJar }

const rethrown = (error: AppError): GraphQLError => new GraphQLError(error.message, { originalError: error })

/** Refuses before anything runs what every root field would refuse, and a registered operation whose scopes a key lacks. */
function admit(
  schema: GraphQLSchema,
  { document, operationName }: ExecutionArgs,
  { actor, input }: ServerContext,
): void {
  const lacking = input.persisted?.requiredScopes.filter((scope) => !actor.scopes.some((held) => held === scope)) ?? []
  if (actor.kind === 'apiKey' && lacking.length)
    throw new AppError('FORBIDDEN', 'This key lacks scopes that the operation needs.', {
      extensions: { requires: { scopes: lacking } },
    })
  if (actor.kind !== 'anonymous') return
  const operation = operationOf(document, operationName)
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

const runs = (platform: Platform, schema: GraphQLSchema): Plugin<object, ServerContext> => ({
  onExecute({ args, setExecuteFn }) {
    const server = args.contextValue as unknown as ServerContext & { request: Request }
    setExecuteFn(async (untyped: unknown) => {
      const call = { ...(untyped as ExecutionArgs), schema }
      let analysis: Analysis
      let remaining: number | null
      let operation: OperationDefinitionNode
      try {
        admit(schema, call, server)
        operation = operationOf(call.document, call.operationName)
        const { coerced, errors } = getVariableValues(
          schema,
          operation.variableDefinitions ?? [],
          call.variableValues ?? {},
        )
        if (errors) return { errors }
        analysis = analyse(schema, call.document, call.operationName, coerced)
        const refusing = analysis.argumentRules.find((rule) => !holds(server.actor, rule))
        if (refusing) throw denial(server.actor, refusing)
        remaining = await charge(platform, server.actor, analysis.cost)
      } catch (error) {
        return { errors: [rethrown(translate(error))] }
      }
      const context = await GraphContext.open(platform, server.actor, server.request.signal, server.cookies)
      try {
        const seen = introspects(call.document) ? visibleSchema(schema, server.actor) : schema
        const result = await execute({ ...call, schema: seen, contextValue: context })
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
              actual: actualCost(schema, call.document, operation, result.data),
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
    })
  },
})

/** Whether nothing at all came of a request: the only case in which its HTTP status is not 200. */
function failedWhole({ data, errors }: ExecutionResult): boolean {
  if (!errors?.length) return false
  return !data || Object.values(data).every((value) => value === null)
}

/** Syntax, validation, coercion: errors that the language itself makes, before any resolver has run. */
const isOfTheLanguage = (error: GraphQLError): boolean => !error.originalError

/** A client of before `application/graphql-response+json` is told of those with 200 (GraphQL over HTTP, 6.4.1). */
function isLegacy(request: Request): boolean {
  const types = (request.headers.get('accept') ?? '').split(',').map((type) => type.split(';')[0]?.trim().toLowerCase())
  return types.includes('application/json') && !types.includes('application/graphql-response+json')
}

/** Puts each error in its public form, and the status of a request that failed as a whole. */
const answers = (platform: Platform): Plugin<object, ServerContext> => ({
  onExecutionResult({ result, setResult, context }) {
    if (!result || Symbol.asyncIterator in result || !result.errors?.length) return
    const { requestId } = context.actor.origin
    const translated = result.errors.map((raw) => {
      const error = translate(raw)
      report(platform.log, requestId, error)
      return { raw, error }
    })
    // A credential that ended while its request ran discredits the whole answer.
    const ended = translated.find(({ error }) => error.code === 'UNAUTHENTICATED' && context.actor.kind !== 'anonymous')
    const told = isLegacy(context.request) && result.errors.every(isOfTheLanguage)
    const status = ended ? 401 : failedWhole(result) && !told ? translated[0]?.error.status : undefined
    const retryAfter = translated.find(({ error }) => error.retryAfterSeconds !== undefined)?.error.retryAfterSeconds
    const errors = (ended ? [ended] : translated).map(
      ({ raw, error }) =>
        new GraphQLError(error.message, {
          nodes: raw.nodes ?? null,
          path: raw.path ?? null,
          extensions: {
            ...present(error, requestId).extensions,
            ...(status
              ? {
                  http: {
                    status,
                    ...(retryAfter === undefined ? {} : { headers: { 'Retry-After': String(retryAfter) } }),
                  },
                }
              : {}),
          },
        }),
    )
    const { data, extensions } = result as ExecutionResult<Record<string, unknown>, Record<string, unknown>>
    setResult({ errors, ...(ended || data === undefined ? {} : { data }), ...(extensions ? { extensions } : {}) })
  },
})

// Before any limit or validation rule walks the document, since some of them follow every spread.
const bounded: Plugin<object, ServerContext> = {
  onParse:
    () =>
    ({ result }: { result: unknown }) => {
      if (typeof result !== 'object' || !result || result instanceof Error || !('definitions' in result)) return
      try {
        boundExpansion(result as DocumentNode)
      } catch (error) {
        throw rethrown(translate(error))
      }
    },
}

/** Limits on the shape of a document; its exact cost is the analysis's. */
const armor = EnvelopArmorPlugin({
  // Introspection nests deeper than any data; graphql-js bounds it by a rule of its own (MaxIntrospectionDepthRule).
  maxDepth: { n: 12, ignoreIntrospection: true, flattenFragments: true },
  maxAliases: { n: 20, allowList: [] },
  maxDirectives: { n: 20 },
  maxTokens: { n: 2000 },
  costLimit: { enabled: false },
  blockFieldSuggestion: { enabled: true },
})

// The edge has read and checked the parameters, so nothing here parses a body again.
const parsed: Plugin<object, ServerContext> = {
  onRequestParse({ serverContext, setRequestParser }) {
    const { query, operationName, variables }: GraphQLRequest = (serverContext as unknown as ServerContext).input
    setRequestParser(() => ({ query, variables, ...(operationName ? { operationName } : {}) }))
  },
}

/** The GraphQL door: `(request, actor) => response`. */
export function createGraphQL(platform: Platform, schema: GraphQLSchema) {
  const yoga = createYoga<ServerContext>({
    schema,
    graphqlEndpoint: '/graphql',
    graphiql: false,
    landingPage: false,
    cors: false,
    batching: false,
    multipart: false,
    maskedErrors: false,
    logging: false,
    plugins: [parsed, bounded, armor as unknown as Plugin, runs(platform, schema), answers(platform)] as Plugin<
      object,
      ServerContext
    >[],
  })
  return async (request: Request, url: URL, actor: Actor): Promise<Response> => {
    const input = await readGraphQLRequest(platform, actor, request, url)
    const cookies = readJar(request.headers, platform.publicUrl)
    const { method, headers, signal } = request
    const answered = await yoga.fetch(new Request(url, { method, headers, signal }), { actor, input, cookies })
    const response = input.persisted && method === 'GET' ? await cacheable(request, answered) : answered
    const setCookie = setCookieHeader(cookies, platform.clock())
    if (setCookie) response.headers.append('Set-Cookie', setCookie)
    // RFC 9110, 15.5.2: a refusal says how to do better. Refusals before execution have theirs from the app.
    const presented = actor.kind === 'anonymous' ? '' : ', error="invalid_token"'
    if (response.status === 401) response.headers.set('WWW-Authenticate', `Bearer realm="mcp"${presented}`)
    return response
  }
}
