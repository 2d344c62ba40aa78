import { system } from '../../kernel/actor.ts'
import { appendAudit, type AuditEntry } from '../../kernel/audit.ts'
import { meaningOf } from '../../kernel/database/failures.ts'
import type { Tx } from '../../kernel/database/door.ts'
import type { AppError } from '../../kernel/errors.ts'
import type { AfterCommit, Call } from '../../kernel/operation.ts'
import {
  countTry,
  forgetTries,
  useSecondFactor,
  wrongProof,
  type Occasion,
  type Proof,
  type TrySubject,
} from '../accounts/factors.ts'

export type Work = Call & { tx: Tx; afterCommit: AfterCommit }

/** What came of it, and what the trail says. A refusal is thrown after the commit, not instead of it. */
export type Outcome<T> = { done: T; audit: AuditEntry | null } | Refusal
export type Refusal = { refused: AppError; audit: AuditEntry | null }

/**
 * A transaction of the platform whose refusals commit too: a wrong try must stay counted, a signed challenge stay used.
 * An operation cannot do this, since it rolls back what fails.
 */
export async function attempt<T>(call: Call, work: (work: Work) => Promise<Outcome<T>>): Promise<T> {
  const { actor, platform, now } = call
  const effects: (() => Promise<void> | void)[] = []
  const outcome = await platform.database
    .transact(system(actor.origin), async (tx) => {
      const result = await work({ ...call, tx, afterCommit: (effect) => effects.push(effect) })
      if (result.audit) await appendAudit(tx, actor, result.audit, 'done' in result ? 'ok' : 'failed', now)
      return result
    })
    .catch((error: unknown) => {
      throw meaningOf(error)
    })
  for (const effect of effects)
    await Promise.resolve()
      .then(effect)
      .catch((error: unknown) =>
        platform.log.error({ err: error, requestId: actor.origin.requestId }, 'an effect after commit failed'),
      )
  if ('refused' in outcome) throw outcome.refused
  return outcome.done
}

/** Judges a proof of a second factor: the try is counted first, and forgotten when the proof is good. Null: it is good. */
export async function judge(
  { tx, platform, now }: Work,
  subject: TrySubject,
  occasion: Occasion & { orgId: string },
  proof: Proof,
): Promise<Refusal | null> {
  const tooMany = await countTry(tx, subject, now)
  if (tooMany) return { refused: tooMany, audit: null }
  const verdict = await useSecondFactor(tx, { platform, now }, occasion, proof)
  if (!verdict.ok) {
    const action = verdict.clonedFactorId ? 'secondFactor.counterRegressed' : 'secondFactor.refused'
    const { userId, orgId } = occasion
    const target = verdict.clonedFactorId ?? userId
    return { refused: wrongProof(), audit: { action, target, userId, orgId, detail: { method: proof.method } } }
  }
  await forgetTries(tx, subject, now)
  return null
}
