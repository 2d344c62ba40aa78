import { isMember, type Actor } from './actor.ts'
import type { Tx } from './database/door.ts'
import type { Prisma } from '../generated/prisma/client.ts'

/** What happened to what. `detail` holds safe fields only: never a secret, never a payload. */
export type AuditEntry = {
  /** noun.pastTense, e.g. `apiKey.revoked`. */
  action: string
  target?: string | null
  detail?: Prisma.InputJsonObject
  /** Set where the actor was nobody yet: the user and the organisation that the event is about. */
  userId?: string
  orgId?: string
}

export type AuditOutcome = 'ok' | 'denied' | 'failed'

/** Appends to the trail, in the transaction of the work. The database chains the events; nobody can change one. */
export async function appendAudit(
  tx: Tx,
  actor: Actor,
  entry: AuditEntry,
  outcome: AuditOutcome,
  now: Date,
): Promise<void> {
  const who = isMember(actor) ? actor : null
  // Many of those who append may not read the trail, so nothing is returned from the insert.
  await tx.auditEvent.createMany({
    data: [
      {
        orgId: who?.orgId ?? entry.orgId ?? null,
        userId: who?.userId ?? entry.userId ?? null,
        actorKind: actor.kind,
        action: entry.action,
        target: entry.target ?? null,
        ...(entry.detail ? { detail: entry.detail } : {}),
        outcome,
        ip: actor.origin.ip,
        requestId: actor.origin.requestId,
        createdAt: now,
      },
    ],
  })
}
