import { gaveFactor, isMember, type Actor, type Member } from '../actor.ts'
import { freshMfaBit } from '../permissions.ts'
import type { Statement } from './exchange.ts'

/** The database roles that a request can run as. Neither owns a table nor bypasses row level security. */
export type DatabaseRole = 'mcp_app' | 'mcp_system'

export const databaseRole = (actor: Actor): DatabaseRole => (actor.kind === 'system' ? 'mcp_system' : 'mcp_app')

/** The claims that row level security reads through `auth.uid()` and its kin. */
export const claimsOf = (actor: Member): string =>
  JSON.stringify({
    sub: actor.userId,
    org: actor.orgId,
    org_role: actor.role,
    scope: actor.scopes,
    ...(actor.limits?.serviceIds ? { services: actor.limits.serviceIds } : {}),
    ...(actor.limits?.operationIds ? { operations: actor.limits.operationIds } : {}),
    // The database believes either as far as the session's row confirms it; the moment, only while it is fresh.
    ...(gaveFactor(actor) ? { mfa: true } : {}),
    ...(actor.mfaAt && actor.permissions & freshMfaBit ? { mfa_at: Math.floor(actor.mfaAt.getTime() / 1000) } : {}),
  })

const identify = 'app.identify($1, $2::uuid, $3)'
const identifyFor = 'app.identify_for($1, $2::uuid, $3, $4::uuid)'
const setRole = (role: DatabaseRole): string => `set_config('role', '${role}', true)`

type Confirming = {
  embedded: boolean
  /** A registered operation that was found in memory; the database confirms that it still stands. */
  operationId?: string | undefined
}

/**
 * The statements that give an exchange its identity; they travel before the query, in its round trip. On a server the
 * login is already an unprivileged role; the embedded database has one session, so the role is taken for the transaction.
 */
export function prelude(actor: Actor, { embedded, operationId }: Confirming): Statement[] {
  if (isMember(actor)) {
    const values = [actor.kind, actor.credentialId, claimsOf(actor), ...(operationId ? [operationId] : [])]
    const call = operationId ? identifyFor : identify
    // Prepared statements are known by name alone, so each text has a name of its own.
    const name = `${embedded ? 'app_' : ''}${operationId ? 'identify_for' : 'identify'}`
    return [{ name, text: embedded ? `SELECT ${setRole('mcp_app')}, ${call}` : `SELECT ${call}`, values }]
  }
  const role = databaseRole(actor)
  return embedded ? [{ name: role, text: `SELECT ${setRole(role)}`, values: [] }] : []
}
