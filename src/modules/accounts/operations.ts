import { z } from 'zod'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError } from '../../kernel/errors.ts'
import { operation } from '../../kernel/operation.ts'
import { scope } from '../../kernel/rule.ts'
import { Secret } from '../../kernel/secret.ts'
import { isMember } from '../../kernel/actor.ts'

/** Lower-cased, since mail providers treat addresses so and two accounts must not differ by case alone. */
export const emailAddress = z.email().max(254).transform((text) => text.toLowerCase()) // prettier-ignore
export const displayName = z.string().trim().min(1).max(100)
/** Any characters; up to 256 so that passphrases fit and hashing stays bounded. */
export const newPassword = z.string().min(12, 'expected 12 characters or more').max(256).transform((text) => new Secret(text)) // prettier-ignore
export const givenPassword = z.string().min(1).max(256).transform((text) => new Secret(text)) // prettier-ignore

/** Adds a user. The hash is made before the transaction opens. */
export const addUser = (tx: Tx, user: { email: string; name: string; passwordHash: string }): Promise<{ id: string }> =>
  tx.user.create({ data: user, select: { id: true } })

export const updateProfile = operation({
  name: 'updateProfile',
  requires: scope('user:write'),
  input: z.strictObject({ name: displayName }),
  run: async ({ tx, actor }, { name }) => {
    if (!isMember(actor)) throw new AppError('UNAUTHENTICATED', 'Sign in, or send an API key.')
    return tx.user.update({ where: { id: actor.userId }, data: { name }, select: { id: true } })
  },
  audit: ({ id }) => ({ action: 'user.updated', target: id }),
})
