import { z } from 'zod'
import type { Member } from '../../kernel/actor.ts'
import { rank, roles, type Role } from '../../kernel/permissions.ts'

/** A role as input. */
export const role = z.enum(roles)

/** Nobody gives more than they hold. */
export const mayGrant = (actor: Pick<Member, 'role'>, role: Role): boolean => rank(actor.role) >= rank(role)
