import { GraphQLError, type ExecutionResult } from 'graphql'
import type { Actor } from '../kernel/actor.ts'
import type { Log } from '../kernel/log.ts'
import { present, report, translate } from './failures.ts'

/** Whether nothing at all came of a request: the only case in which its HTTP status is not 200. */
function failedWhole({ data, errors }: ExecutionResult): boolean {
  if (!errors?.length) return false
  return !data || Object.values(data).every((value) => value === null)
}

/** Syntax, validation, coercion: errors that the language itself makes, before any resolver has run. */
const isOfTheLanguage = (error: GraphQLError): boolean => !error.originalError

/** A client of before `application/graphql-response+json` is told of those with 200 (GraphQL over HTTP, 6.4.1). */
function isLegacy(accept: string | null): boolean {
  const types = (accept ?? '').split(',').map((type) => type.split(';')[0]?.trim().toLowerCase())
  return types.includes('application/json') && !types.includes('application/graphql-response+json')
}

/** What goes out: the result with each error in its public form, and what HTTP says of it. */
export type Presented = { result: ExecutionResult; status: number | undefined; headers: Record<string, string> }

/** Puts each error in its public form, and finds the status of a request that failed as a whole. */
export function presented(log: Log, actor: Actor, accept: string | null, result: ExecutionResult): Presented {
  if (!result.errors?.length) return { result, status: undefined, headers: {} }
  const { requestId } = actor.origin
  const translated = result.errors.map((raw) => {
    const error = translate(raw)
    report(log, requestId, error)
    return { raw, error }
  })
  // A credential that ended while its request ran discredits the whole answer.
  const ended = translated.find(({ error }) => error.code === 'UNAUTHENTICATED' && actor.kind !== 'anonymous')
  const told = isLegacy(accept) && result.errors.every(isOfTheLanguage)
  const status = ended ? 401 : failedWhole(result) && !told ? translated[0]?.error.status : undefined
  const retryAfter = translated.find(({ error }) => error.retryAfterSeconds !== undefined)?.error.retryAfterSeconds
  const errors = (ended ? [ended] : translated).map(
    ({ raw, error }) =>
      new GraphQLError(error.message, {
        nodes: raw.nodes ?? null,
        path: raw.path ?? null,
        extensions: present(error, requestId).extensions,
      }),
  )
  const { data, extensions } = result
  return {
    result: { errors, ...(ended || data === undefined ? {} : { data }), ...(extensions ? { extensions } : {}) },
    status,
    headers: status && retryAfter !== undefined ? { 'Retry-After': String(retryAfter) } : {},
  }
}
