import { system, type Actor, type Member } from '../../kernel/actor.ts'
import { AppError, mustEnrol } from '../../kernel/errors.ts'
import type { Platform } from '../../kernel/platform.ts'
import { methodsOf } from './factors.ts'

/** A rule that refused for want of a fresh second factor, and knew no more than that. */
const lacksFactor = ({ code, extensions }: AppError): boolean => code === 'MFA_REQUIRED' && !('methods' in extensions)

/** A refusal of somebody whose session was given no more than enrolling needs; every role holds `org:read`. */
const lacksScope = (actor: Member, { code }: AppError): boolean =>
  code === 'FORBIDDEN' && !actor.scopes.includes('org:read')

/**
 * Says in a refusal which second factors would do, or that one must be enrolled first. Rules are judged without asking
 * the database; what the caller has is looked up here, once a request, and only for one that was refused.
 */
export async function nameMethods(platform: Platform, actor: Actor, errors: readonly AppError[]): Promise<AppError[]> {
  if (actor.kind !== 'user' || !errors.some((error) => lacksFactor(error) || lacksScope(actor, error)))
    return [...errors]
  const { methods, required } = await platform.database.read(system(actor.origin), async (tx) => ({
    methods: await methodsOf(tx, actor.userId),
    required: await tx.organization.findFirst({ where: { id: actor.orgId, requireMfa: true }, select: { id: true } }),
  }))
  return errors.map((error) => {
    if (lacksScope(actor, error)) return methods.length === 0 && required ? mustEnrol(error) : error
    if (!lacksFactor(error)) return error
    const enrol = methods.length === 0
    const message = enrol ? 'This needs a second factor, and you have none yet. Enrol one first.' : error.message
    const extensions = { ...error.extensions, methods, ...(enrol ? { enrol } : {}) }
    return new AppError('MFA_REQUIRED', message, { cause: error, extensions })
  })
}
