import { z } from 'zod'
import type { Actor, Member } from '../kernel/actor.ts'
import { AppError, badInput } from '../kernel/errors.ts'
import { parse } from '../kernel/operation.ts'
import type { Platform } from '../kernel/platform.ts'
import { recallPersisted, rememberPersisted, resolvePersisted, sha256Of } from '../modules/persisted/operations.ts'
import { readJson } from './body.ts'

const jsonObject = z.record(z.string(), z.unknown())

const parameters = z.strictObject({
  query: z.string().nullish(),
  documentId: z.string().nullish(),
  operationName: z.string().max(200).nullish(),
  variables: jsonObject.nullish(),
  extensions: z.looseObject({ persistedQuery: z.looseObject({ sha256Hash: z.string() }).optional() }).nullish(),
})

/** What a request asks to run, with its document found. */
export type GraphQLRequest = {
  query: string
  operationName: string | undefined
  variables: Record<string, unknown>
  persisted: { requiredScopes: readonly string[] } | null
}

const jsonParameter = (search: URLSearchParams, name: string): unknown => {
  const text = search.get(name)
  if (text === null || text === '') return undefined
  try {
    return JSON.parse(text) as unknown
  } catch (cause) {
    throw badInput([{ path: [name], message: 'expected well-formed JSON' }], cause)
  }
}

type Parameters = z.infer<typeof parameters>

async function parseParameters(request: Request, url: URL, limitBytes: number): Promise<Parameters> {
  if (request.method === 'POST') return parse(parameters, await readJson(request, limitBytes))
  const { searchParams } = url
  return parse(parameters, {
    query: searchParams.get('query'),
    documentId: searchParams.get('documentId'),
    operationName: searchParams.get('operationName'),
    variables: jsonParameter(searchParams, 'variables'),
    extensions: jsonParameter(searchParams, 'extensions'),
  })
}

// A body can be read once, and more than one way of answering asks for it.
const read = new WeakMap<Request, Promise<Parameters>>()

function readParameters(request: Request, url: URL, limitBytes: number): Promise<Parameters> {
  const known = read.get(request) ?? parseParameters(request, url, limitBytes)
  read.set(request, known)
  return known
}

const referenceOf = ({ documentId, extensions }: Parameters): string | null | undefined =>
  documentId ?? extensions?.persistedQuery?.sha256Hash

/** A request for a registered query that this instance remembers; null for every other, good or bad. */
export async function recallGraphQLRequest(
  platform: Platform,
  actor: Member,
  request: Request,
  url: URL,
): Promise<{ input: GraphQLRequest; operationId: string; reference: string } | null> {
  const given = await readParameters(request, url, platform.config.bodyLimitBytes).catch(() => null)
  const reference = given && !given.query && referenceOf(given)
  const found = reference ? recallPersisted(platform, actor, reference) : undefined
  if (!given || !reference || found?.kind !== 'query') return null
  const { id: operationId, document: query, requiredScopes } = found
  const asked = { operationName: given.operationName ?? undefined, variables: given.variables ?? {} }
  return { input: { ...asked, query, persisted: { requiredScopes } }, operationId, reference }
}

/** An API key runs registered operations alone; a person may send documents, and a stranger those of signing in. */
export async function readGraphQLRequest(
  platform: Platform,
  actor: Actor,
  request: Request,
  url: URL,
): Promise<GraphQLRequest> {
  const given = await readParameters(request, url, platform.config.bodyLimitBytes)
  const reference = referenceOf(given)
  const base = { operationName: given.operationName ?? undefined, variables: given.variables ?? {} }
  if (given.query && reference && sha256Of(given.query) !== reference.replace(/^sha256:/, ''))
    throw badInput([{ path: ['query'], message: 'expected the document that the hash names' }])
  if (actor.kind !== 'apiKey' && given.query) return { ...base, query: given.query, persisted: null }
  if (!reference) {
    if (actor.kind !== 'apiKey') throw badInput([{ path: ['query'], message: 'expected a GraphQL document' }])
    throw new AppError(
      'PERSISTED_QUERY_REQUIRED',
      'An API key runs registered operations: send documentId or extensions.persistedQuery.sha256Hash.',
    )
  }
  if (actor.kind === 'anonymous')
    throw new AppError(
      'PERSISTED_QUERY_NOT_FOUND',
      'No such persisted operation. Register it first: registerPersistedOperation.',
    )
  const found = await platform.database.read(actor, (tx) => resolvePersisted(tx, actor, reference))
  rememberPersisted(platform, actor, reference, found)
  const { document, kind, requiredScopes } = found
  if (request.method === 'GET' && kind !== 'query')
    throw badInput([{ path: [], message: 'expected POST for a mutation' }])
  return { ...base, query: document, persisted: { requiredScopes } }
}
