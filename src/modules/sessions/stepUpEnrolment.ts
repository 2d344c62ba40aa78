import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { system } from '../../kernel/actor.ts'
import type { Tx } from '../../kernel/database/door.ts'
import { AppError, notFound } from '../../kernel/errors.ts'
import { nodeId } from '../../kernel/nodeId.ts'
import { operation, type Call } from '../../kernel/operation.ts'
import { scope } from '../../kernel/rule.ts'
import {
  attestationJson,
  confirmTotp as confirmCode,
  givenCode,
  issueRecoveryCodes,
  newTotpSecret,
  registrationOptions,
  sealTotpSecret,
  sendEmailCode,
  totpEnrolment,
  useEmailCode,
  verifyRegistration,
  wrongProof,
} from '../accounts/factors.ts'
import { givenPassword } from '../accounts/operations.ts'
import { confirmPresence, freshen, standingSession, type Standing } from './stepUp.ts'

const maxFactors = 20
const label = z.string().trim().min(1).max(60)
const password = givenPassword
  .optional()
  .describe('Yours, while you have no second factor. Afterwards a fresh second factor takes its place.')

const base = { requires: scope('user:write'), runAs: 'system' } as const
const presence = (call: Call, input: { password?: z.output<typeof givenPassword> | undefined }): Promise<void> =>
  confirmPresence(call, input.password)

async function admitAnother(tx: Tx, userId: string): Promise<void> {
  if ((await tx.secondFactor.count({ where: { userId } })) >= maxFactors)
    throw new AppError('CONFLICT', `An account holds at most ${maxFactors} second factors. Remove one first.`)
}

/** What a newly confirmed factor gives: the session is fresh, and with the first factor come the recovery codes. */
async function enrolled(tx: Tx, call: Call, standing: Standing, factor: { id: string; kind: string }) {
  const { userId } = standing
  const first = (await tx.recoveryCode.findFirst({ where: { userId }, select: { id: true } })) === null
  const recoveryCodes = first ? await issueRecoveryCodes(tx, call, userId) : null
  return { factor, recoveryCodes, session: await freshen(tx, standing, call.now) }
}
export type Enrolled = Awaited<ReturnType<typeof enrolled>>

const added = ({ factor: { id, kind } }: Enrolled) => ({
  action: 'secondFactor.added',
  target: id,
  detail: { kind },
})

export const enrolTotp = operation({
  ...base,
  name: 'enrolTotp',
  input: z.strictObject({ label: label.optional().describe('Default: Authenticator app.'), password }),
  prepare: presence,
  run: async ({ tx, platform, actor, now }, { label: given }) => {
    const { userId, email } = await standingSession(tx, actor, now)
    await tx.secondFactor.deleteMany({ where: { userId, kind: 'TOTP', confirmedAt: null } })
    await admitAnother(tx, userId)
    const secret = newTotpSecret()
    const id = randomUUID()
    const sealedSecret = sealTotpSecret(platform, userId, id, secret)
    await tx.secondFactor.createMany({
      data: [{ id, userId, kind: 'TOTP', label: given ?? 'Authenticator app', sealedSecret, createdAt: now }],
    })
    return { id, secret, ...totpEnrolment(platform, secret, email) }
  },
  audit: ({ id }) => ({ action: 'secondFactor.enrolmentBegun', target: id, detail: { kind: 'TOTP' } }),
})

export const confirmTotp = operation({
  ...base,
  name: 'confirmTotp',
  input: z.strictObject({ id: nodeId('SecondFactor'), code: givenCode }),
  run: async ({ tx, ...call }, { id, code }) => {
    const standing = await standingSession(tx, call.actor, call.now)
    const factor = await tx.secondFactor.findFirst({
      where: { id, userId: standing.userId, kind: 'TOTP', confirmedAt: null },
      select: { id: true, userId: true, sealedSecret: true },
    })
    if (!factor) throw notFound('pending second factor')
    if (!(await confirmCode(tx, call, factor, code))) throw wrongProof()
    return enrolled(tx, call, standing, { id, kind: 'TOTP' })
  },
  audit: added,
})

export const enrolEmailCodes = operation({
  ...base,
  name: 'enrolEmailCodes',
  input: z.strictObject({ password }),
  prepare: presence,
  run: async ({ tx, ...work }) => {
    const { id, userId, email } = await standingSession(tx, work.actor, work.now)
    return { userId, ...(await sendEmailCode({ ...work, tx }, { userId, email, boundTo: `enrol:${id}` })) }
  },
  audit: ({ userId }) => ({ action: 'secondFactor.enrolmentBegun', target: userId, detail: { kind: 'EMAIL' } }),
})

export const confirmEmailCodes = operation({
  ...base,
  name: 'confirmEmailCodes',
  input: z.strictObject({ code: givenCode }),
  // In a transaction of its own, so that a wrong try stays counted.
  prepare: ({ platform, now, actor }, { code }) =>
    platform.database.transact(system(actor.origin), async (tx) => {
      const { id, userId } = await standingSession(tx, actor, now)
      return useEmailCode(tx, { platform, now }, { userId, boundTo: `enrol:${id}` }, code)
    }),
  run: async ({ tx, prepared: good, ...call }) => {
    if (!good) throw wrongProof()
    const standing = await standingSession(tx, call.actor, call.now)
    const id = randomUUID()
    const row = { id, userId: standing.userId, kind: 'EMAIL' as const, label: standing.email }
    await tx.secondFactor.createMany({ data: [{ ...row, createdAt: call.now, confirmedAt: call.now }] })
    return enrolled(tx, call, standing, { id, kind: 'EMAIL' })
  },
  audit: added,
})

export const startPasskeyRegistration = operation({
  ...base,
  name: 'startPasskeyRegistration',
  input: z.strictObject({ password }),
  prepare: presence,
  run: async ({ tx, ...call }) => {
    const { id, userId, email, name } = await standingSession(tx, call.actor, call.now)
    await admitAnother(tx, userId)
    return { userId, options: await registrationOptions(tx, call, { userId, boundTo: `enrol:${id}`, email, name }) }
  },
  audit: ({ userId }) => ({ action: 'secondFactor.enrolmentBegun', target: userId, detail: { kind: 'PASSKEY' } }),
})

export const registerPasskey = operation({
  ...base,
  name: 'registerPasskey',
  input: z.strictObject({
    attestation: attestationJson.describe('What `navigator.credentials.create()` gave, as its `toJSON()` writes it.'),
    label: label.optional().describe('Default: Passkey.'),
  }),
  // In a transaction of its own, so that a challenge that was answered stays used.
  prepare: ({ platform, now, actor }, { attestation }) =>
    platform.database.transact(system(actor.origin), async (tx) => {
      const { id, userId } = await standingSession(tx, actor, now)
      return verifyRegistration(tx, { platform, now }, { userId, boundTo: `enrol:${id}` }, attestation)
    }),
  run: async ({ tx, prepared: passkey, ...call }, { label: given }) => {
    if (!passkey) throw new AppError('INVALID_CREDENTIALS', 'The passkey was not accepted. Start again.')
    const standing = await standingSession(tx, call.actor, call.now)
    await admitAnother(tx, standing.userId)
    const id = randomUUID()
    const row = { id, userId: standing.userId, kind: 'PASSKEY' as const, label: given ?? 'Passkey', ...passkey }
    await tx.secondFactor.createMany({ data: [{ ...row, createdAt: call.now, confirmedAt: call.now }] })
    return enrolled(tx, call, standing, { id, kind: 'PASSKEY' })
  },
  audit: added,
})

export const removeSecondFactor = operation({
  ...base,
  name: 'removeSecondFactor',
  input: z.strictObject({ id: nodeId('SecondFactor'), password }),
  prepare: presence,
  run: async ({ tx, actor, now }, { id }) => {
    const { userId } = await standingSession(tx, actor, now)
    // One removal at a time for a user, so that two cannot each leave the other's factor as the last.
    await tx.$executeRaw`SELECT pg_advisory_xact_lock(hashtextextended(${`secondFactors:${userId}`}, 0))`
    const factor = await tx.secondFactor.findFirst({ where: { id, userId }, select: { id: true, kind: true } })
    if (!factor) throw notFound('second factor')
    const others = await tx.secondFactor.count({ where: { userId, id: { not: id }, confirmedAt: { not: null } } })
    const memberships = { some: { userId, deactivatedAt: null } }
    if (
      !others &&
      (await tx.organization.findFirst({ where: { requireMfa: true, memberships }, select: { id: true } }))
    )
      throw new AppError('CONFLICT', 'An organisation of yours requires a second factor. Add another one first.')
    await tx.secondFactor.deleteMany({ where: { id } })
    if (!others) await tx.recoveryCode.deleteMany({ where: { userId } })
    return factor
  },
  audit: ({ id, kind }) => ({ action: 'secondFactor.removed', target: id, detail: { kind } }),
})

export const regenerateRecoveryCodes = operation({
  ...base,
  name: 'regenerateRecoveryCodes',
  input: z.strictObject({}),
  prepare: (call) => confirmPresence(call, null),
  run: async ({ tx, ...call }) => {
    const { userId } = await standingSession(tx, call.actor, call.now)
    return { userId, codes: await issueRecoveryCodes(tx, call, userId) }
  },
  audit: ({ userId }) => ({ action: 'recoveryCodes.regenerated', target: userId }),
})
