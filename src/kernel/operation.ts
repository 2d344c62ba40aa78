import type { z } from 'zod'
import { isMember, system, type Actor } from './actor.ts'
import { appendAudit, type AuditEntry } from './audit.ts'
import { meaningOf } from './database/failures.ts'
import type { Tx } from './database/door.ts'
import type { AppError } from './errors.ts'
import { badInput } from './errors.ts'
import type { Platform } from './platform.ts'
import { denial, holds, rowDenial, type Rule } from './rule.ts'

/** Who asks, and on what platform. */
export type Call<A extends Actor = Actor> = {
  readonly actor: A
  readonly platform: Platform
  readonly now: Date
  readonly signal?: AbortSignal
}

/** A verb as every door sees it: GraphQL, the MCP endpoint, the command line and jobs run this and nothing else. */
export type Operation<Input, Output> = {
  readonly name: string
  readonly requires: Rule
  readonly input: z.ZodType<Input>
  run(call: { actor: Actor; platform: Platform; signal?: AbortSignal }, input: unknown): Promise<Output>
}

/** Sent after the commit, never before: mail, webhooks, cache entries. A failure here is logged and undoes nothing. */
export type AfterCommit = (effect: () => Promise<void> | void) => void

/** Parses input at a boundary: every bad value with its path. */
export function parse<Input>(schema: z.ZodType<Input>, raw: unknown): Input {
  const parsed = schema.safeParse(raw)
  if (parsed.success) return parsed.data
  throw badInput(
    parsed.error.issues.map(({ path, message }) => ({
      path: path.map((p) => (typeof p === 'symbol' ? String(p) : p)),
      message,
    })),
  )
}

/** Writes a refusal down, with the rule that decided, in a transaction of its own. */
export async function recordDenial(
  call: Pick<Call, 'actor' | 'platform' | 'now'>,
  name: string,
  error: AppError,
  target: string | null = null,
): Promise<void> {
  // Strangers cannot fill the trail; their refusals are in the log.
  if (!isMember(call.actor)) return
  const entry = {
    action: `${name}.denied`,
    target,
    detail: { code: error.code, requires: JSON.stringify(error.extensions['requires'] ?? {}) },
  }
  const { origin } = call.actor
  await call.platform.database
    .transact(system(origin), (tx) => appendAudit(tx, call.actor, entry, 'denied', call.now))
    .catch((cause: unknown) =>
      call.platform.log.error({ err: cause, requestId: origin.requestId }, 'a denial could not be recorded'),
    )
}

/** The gate that every verb passes: the rule first, then the input. A denial is recorded outside any transaction of the work. */
async function admit<Input>(
  call: Call,
  { name, requires, input }: { name: string; requires: Rule; input: z.ZodType<Input> },
  raw: unknown,
): Promise<Input> {
  if (!holds(call.actor, requires)) {
    const error = denial(call.actor, requires)
    await recordDenial(call, name, error)
    throw error
  }
  return parse(input, raw)
}

const idOf = (row: unknown): string | null =>
  typeof row === 'object' && row !== null && 'id' in row && typeof row.id === 'string' ? row.id : null

type Definition<Input, Prepared, Row, Output> = {
  name: string
  requires: Rule
  input: z.ZodType<Input>
  /** `system` for verbs of people who are nobody yet (sign-in). Default: as the caller, under their row level security. */
  runAs?: 'caller' | 'system'
  /** Slow work before the transaction opens: hashing, mail look-ups, calls. It writes nothing. */
  prepare?: (call: Call, input: Input) => Promise<Prepared>
  /**
   * The row that the verb is about. None, or one that the rule's row policy refuses, is the same `NOT_FOUND`. Where the
   * policy says that rows belong to people, an act on another's takes what it says, whatever the scope.
   */
  target?: { noun: string; find: (tx: Tx, input: Input, call: Call) => Promise<Row | null> }
  run: (
    work: Call & { tx: Tx; prepared: Prepared; row: Row; afterCommit: AfterCommit },
    input: Input,
  ) => Promise<Output>
  /** What the trail says. It is written in the work's own transaction. */
  audit: (output: Output, input: Input) => AuditEntry
}

/**
 * Bundles what a verb needs, so that no door can do what another forbids:
 * permit → prepare → transact (identity first) → row policy → work → audit in the same transaction → commit → after commit.
 */
export function operation<Input, Output, Prepared = undefined, Row = undefined>(
  definition: Definition<Input, Prepared, Row, Output>,
): Operation<Input, Output> {
  const { name, requires, input, prepare, target, run, audit } = definition
  return {
    name,
    requires,
    input,
    async run(caller, raw) {
      const call: Call = { ...caller, now: caller.platform.clock() }
      const { actor, platform, now } = call
      const values = await admit(call, definition, raw)
      const prepared = (await prepare?.(call, values)) as Prepared
      const effects: (() => Promise<void> | void)[] = []
      let refused: { error: AppError; target: string | null } | null = null
      const output = await platform.database
        .transact(definition.runAs === 'system' ? system(actor.origin) : actor, async (tx) => {
          const row = (await target?.find(tx, values, call)) as Row
          const error = target ? rowDenial(actor, requires, row, target.noun) : null
          if (error) {
            refused = { error, target: idOf(row) }
            throw error
          }
          const result = await run(
            { ...call, tx, prepared, row, afterCommit: (effect) => effects.push(effect) },
            values,
          )
          await appendAudit(tx, actor, audit(result, values), 'ok', now)
          return result
        })
        .catch(async (error: unknown) => {
          if (refused && refused.error.code !== 'NOT_FOUND')
            await recordDenial(call, name, refused.error, refused.target)
          throw meaningOf(error)
        })
      for (const effect of effects) {
        try {
          await effect()
        } catch (error) {
          platform.log.error(
            { err: error, operation: name, requestId: actor.origin.requestId },
            'an effect after commit failed',
          )
        }
      }
      return output
    },
  }
}

/**
 * A verb whose work is a call across the network (a tool of an upstream server): the same gate, no transaction held.
 * It reads and records through the platform's database itself; its record takes the place of an audit event.
 */
export function procedure<Input, Output>(definition: {
  name: string
  requires: Rule
  input: z.ZodType<Input>
  perform: (call: Call, input: Input) => Promise<Output>
}): Operation<Input, Output> {
  const { name, requires, input, perform } = definition
  return {
    name,
    requires,
    input,
    async run(caller, raw) {
      const call: Call = { ...caller, now: caller.platform.clock() }
      const values = await admit(call, definition, raw)
      return perform(call, values).catch((error: unknown) => {
        throw meaningOf(error)
      })
    },
  }
}
