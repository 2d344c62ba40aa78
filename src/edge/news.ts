import { createSourceEventStream, execute, GraphQLError, type ExecutionArgs, type ExecutionResult } from 'graphql'
import { GraphContext } from '../graphql/context.ts'
import { asOf, type Actor } from '../kernel/actor.ts'
import { AppError } from '../kernel/errors.ts'
import type { Platform } from '../kernel/platform.ts'
import { recordDenials } from './denials.ts'
import { present, report, translate } from './failures.ts'

/** Streams of one credential at a time, on one instance. */
const maxStreams = 8
const open = new Map<string, number>()

function enter(actor: Actor): () => void {
  const key = 'credentialId' in actor ? actor.credentialId : ''
  const count = (open.get(key) ?? 0) + 1
  if (count > maxStreams) throw new AppError('RATE_LIMITED', `A credential may hold ${maxStreams} streams open.`)
  open.set(key, count)
  return () => {
    const left = (open.get(key) ?? 1) - 1
    if (left > 0) open.set(key, left)
    else open.delete(key)
  }
}

/**
 * A subscription: its source runs for as long as it may, and each item of it is executed in a context of its own, so that no
 * transaction stays open between two items.
 */
export async function news(
  platform: Platform,
  actor: Actor,
  call: ExecutionArgs,
  signal: AbortSignal,
): Promise<AsyncIterable<ExecutionResult> | { errors: readonly GraphQLError[] }> {
  const ended = new AbortController()
  const until = AbortSignal.any([signal, ended.signal])
  const context = new GraphContext(platform, actor, until)
  try {
    // Before it begins, no statement has asked whether the credential still stands.
    await context.confirm()
    const leave = enter(actor)
    const source = await createSourceEventStream({ ...call, contextValue: context })
    if (!(Symbol.asyncIterator in source)) {
      leave()
      return { errors: source.errors ?? [] }
    }
    return items(source, { platform, actor, call, signal: until }, () => {
      ended.abort()
      leave()
    })
  } catch (error) {
    const failure = translate(error)
    return { errors: [new GraphQLError(failure.message, { originalError: failure })] }
  } finally {
    await recordDenials(context)
    await context.close()
  }
}

type Run = { platform: Platform; actor: Actor; call: ExecutionArgs; signal: AbortSignal }

async function* items(
  source: AsyncIterable<unknown>,
  { platform, actor, call, signal }: Run,
  leave: () => void,
): AsyncGenerator<ExecutionResult> {
  try {
    for await (const rootValue of source) {
      // As the caller of now: the database confirms session and role with the item's own statement, time does the rest.
      const context = new GraphContext(platform, asOf(actor, platform.clock()), signal)
      try {
        yield await execute({ ...call, rootValue, contextValue: context })
      } finally {
        await context.close()
      }
    }
  } catch (error) {
    // The last item says why there are no more; a credential that has ended is the usual reason.
    const failure = translate(error)
    report(platform.log, actor.origin.requestId, failure)
    const { message, extensions } = present(failure, actor.origin.requestId)
    yield { errors: [new GraphQLError(message, { extensions })] }
  } finally {
    leave()
  }
}
