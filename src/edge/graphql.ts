import { EnvelopArmorPlugin } from '@escape.tech/graphql-armor'
import { Response } from '@whatwg-node/fetch'
import {
  GraphQLError,
  OperationTypeNode,
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  type GraphQLSchema,
} from 'graphql'
import { createYoga, type Plugin } from 'graphql-yoga'
import { boundExpansion } from '../graphql/expansion.ts'
import { noCookies } from '../graphql/context.ts'
import type { Actor, Member, Origin } from '../kernel/actor.ts'
import type { AppError } from '../kernel/errors.ts'
import type { Platform } from '../kernel/platform.ts'
import { forgetPersisted } from '../modules/persisted/operations.ts'
import { presented } from './answers.ts'
import { authenticate, forget, recall } from './authenticate.ts'
import { cacheable, cacheableAnswer } from './cacheable.ts'
import { readJar, setCookieHeader } from './cookies.ts'
import { refusalOf, rethrown, runOperation, type ServerContext } from './execution.ts'
import { translate } from './failures.ts'
import { readGraphQLRequest, recallGraphQLRequest, type GraphQLRequest } from './graphqlRequest.ts'
import { admittedInTurn } from './limits.ts'
import { KnownDocuments, type KnownDocument } from './knownDocuments.ts'
import { news } from './news.ts'

const runs = (platform: Platform, schema: GraphQLSchema, documents: KnownDocuments): Plugin<object, ServerContext> => ({
  onExecute({ args, setExecuteFn }) {
    const server = args.contextValue as unknown as ServerContext & { request: Request }
    setExecuteFn((untyped: unknown) => {
      const call = untyped as ExecutionArgs
      // Whatever stands in the way of a document has let this one pass.
      const known = documents.keep(server.input.query, call.document)
      return runOperation(platform, schema, known, call, server, server.request.signal)
    })
  },
  onSubscribe({ args, setSubscribeFn }) {
    const server = args.contextValue as unknown as ServerContext & { request: Request }
    setSubscribeFn(async (untyped: unknown) => {
      const call = { ...(untyped as ExecutionArgs), schema }
      const known = documents.keep(server.input.query, call.document)
      const refusal = await refusalOf(platform, schema, known, call, server)
      return refusal ?? news(platform, server.actor, call, server.request.signal)
    })
  },
})

/** Puts each error in its public form, and the status of a request that failed as a whole. */
const answers = (platform: Platform): Plugin<object, ServerContext> => ({
  onExecutionResult({ result, setResult, context }) {
    if (!result || Symbol.asyncIterator in result || !result.errors?.length) return
    const {
      result: shown,
      status,
      headers,
    } = presented(platform.log, context.actor, context.request.headers.get('accept'), result)
    const http = status ? { http: { status, headers } } : {}
    setResult({
      ...(shown as ExecutionResult<Record<string, unknown>, Record<string, unknown>>),
      errors:
        shown.errors?.map(
          ({ message, nodes, path, extensions }) =>
            new GraphQLError(message, {
              nodes: nodes ?? null,
              path: path ?? null,
              extensions: { ...extensions, ...http },
            }),
        ) ?? [],
    })
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

const plainTypes = new Map([
  ['', 'application/json'],
  ['*/*', 'application/json'],
  ['application/json', 'application/json'],
  ['application/graphql-response+json', 'application/graphql-response+json'],
])

/** The media type of a plain answer; undefined for all that Yoga is to negotiate, streams and writes by GET among it. */
function plainType(
  { method, headers }: Request,
  known: KnownDocument,
  { operationName }: GraphQLRequest,
): string | undefined {
  try {
    const { operation } = known.operation(operationName)
    if (operation === OperationTypeNode.SUBSCRIPTION) return undefined
    if (method === 'GET' && operation !== OperationTypeNode.QUERY) return undefined
  } catch {
    return undefined
  }
  return plainTypes.get(headers.get('accept') ?? '')
}

/** What a refusal can come of, when key or operation were taken from memory: either may have ended or changed since. */
const mayBeMemory = ({ code }: AppError): boolean => code === 'UNAUTHENTICATED' || code === 'PERSISTED_QUERY_NOT_FOUND'

/** The GraphQL door: `(request, origin) => response`. */
export function createGraphQL(platform: Platform, schema: GraphQLSchema) {
  const documents = new KnownDocuments()
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
    plugins: [
      parsed,
      bounded,
      armor as unknown as Plugin,
      runs(platform, schema, documents),
      answers(platform),
    ] as Plugin<object, ServerContext>[],
  })

  /** The short way for a document that is known: no parsing, no validation, no plug-ins; the same rules, cost and errors. */
  async function shortcut(
    known: KnownDocument,
    request: Request,
    server: ServerContext,
    type: string,
    operationId?: string,
  ) {
    const { operationName, variables } = server.input
    const call = { operationName, variableValues: variables }
    const answer = await runOperation(platform, schema, known, call, server, request.signal, operationId)
    // What came of memory does not hold: nothing was changed, so the request may be answered again from the start.
    if (operationId && answer.errors?.some((error) => mayBeMemory(translate(error)))) return null
    const { result, status, headers } = presented(platform.log, server.actor, request.headers.get('accept'), answer)
    const mediaType = `${type}; charset=utf-8`
    if (server.input.persisted && request.method === 'GET' && !result.errors)
      return cacheable(request, result, mediaType)
    return new Response(JSON.stringify(result), {
      status: status ?? 200,
      headers: { 'Content-Type': mediaType, ...headers },
    })
  }

  /** A registered query that this instance remembers, confirmed by the statement that answers it; null where it does not. */
  async function remembered(request: Request, url: URL, actor: Member, admit: () => Promise<unknown>) {
    const asked = await recallGraphQLRequest(platform, actor, request, url)
    const known = asked && documents.find(asked.input.query)
    const type = known && plainType(request, known, asked.input)
    if (!type) return null
    await admit()
    const server = { actor, input: asked.input, cookies: noCookies() }
    const response = await shortcut(known, request, server, type, asked.operationId)
    if (!response) forgetPersisted(platform, actor, asked.reference)
    return response
  }

  async function found(request: Request, url: URL, actor: Actor): Promise<Response> {
    const input = await readGraphQLRequest(platform, actor, request, url)
    const cookies = readJar(request.headers, platform.publicUrl)
    const server = { actor, input, cookies }
    const { method, headers, signal } = request
    const known = documents.find(input.query)
    const type = known && plainType(request, known, input)
    const short = known && type ? await shortcut(known, request, server, type) : null
    const answered = short ?? (await yoga.fetch(new Request(url, { method, headers, signal }), server))
    const response = !short && input.persisted && method === 'GET' ? await cacheableAnswer(request, answered) : answered
    const setCookie = setCookieHeader(cookies, platform.clock())
    if (setCookie) response.headers.append('Set-Cookie', setCookie)
    return response
  }

  return async (request: Request, url: URL, origin: Origin): Promise<Response> => {
    const key = recall(platform, request.headers, origin)
    const early =
      key && (await remembered(request, url, key, () => admittedInTurn(platform, origin, Promise.resolve(key))))
    if (early) return early
    if (key) forget(platform, request.headers)
    const actor = await admittedInTurn(platform, origin, authenticate(platform, request.headers, origin))
    const response =
      (actor.kind === 'user' ? await remembered(request, url, actor, () => Promise.resolve()) : null) ??
      (await found(request, url, actor))
    // RFC 9110, 15.5.2: a refusal says how to do better. Refusals before execution have theirs from the app.
    const bad = actor.kind === 'anonymous' ? '' : ', error="invalid_token"'
    if (response.status === 401) response.headers.set('WWW-Authenticate', `Bearer realm="mcp"${bad}`)
    return response
  }
}
