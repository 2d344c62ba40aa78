import { createHash, createPublicKey, verify } from 'node:crypto'
import { z } from 'zod'
import { system, type Origin } from '../../kernel/actor.ts'
import { AppError, badInput } from '../../kernel/errors.ts'
import { mailer } from '../../kernel/mail.ts'
import { operation, parse } from '../../kernel/operation.ts'
import type { Platform } from '../../kernel/platform.ts'
import { isPublic } from '../../kernel/rule.ts'
import { parseApiKey } from './format.ts'
import { endKeys } from './operations.ts'

const report = z
  .array(
    z.object({
      token: z.string().min(1).max(1000),
      type: z.string().max(200),
      url: z.string().max(4000).nullish(),
      source: z.string().max(200).nullish(),
    }),
  )
  .min(1)
  .max(500)

/** What GitHub's secret scanning takes as feedback. The hash names the token without repeating it. */
export type Verdict = { token_hash: string; token_type: string; label: 'true_positive' | 'false_positive' }

const notSigned = (): AppError =>
  new AppError('UNAUTHENTICATED', 'The report is not signed by a key that this platform knows.')

/** ECDSA-NIST-P256V1-SHA256 over the raw body, as GitHub signs it; the operator says whose keys count. */
export function checkSignature(
  keys: readonly { identifier: string; key: string }[],
  body: string,
  { identifier, signature }: { identifier: string | null; signature: string | null },
): void {
  const known = keys.find((key) => key.identifier === identifier)
  if (!known || !signature || !z.base64().safeParse(signature).success) throw notSigned()
  const key = createPublicKey(known.key)
  const curve = key.asymmetricKeyDetails?.namedCurve
  if (curve !== 'prime256v1' || !verify('sha256', Buffer.from(body), key, Buffer.from(signature, 'base64')))
    throw notSigned()
}

/** Where a key was seen, without what an address may carry besides. */
const place = (url: string | null | undefined): string | null =>
  url && URL.canParse(url) ? new URL(url).origin + new URL(url).pathname.slice(0, 500) : null

const letter = (key: { name: string; hint: string }, url: string | null): string =>
  [
    `Your API key "${key.name}" (ending in ${key.hint}) was found in a public place and has been revoked.`,
    ...(url ? ['', `It was seen at: ${url}`] : []),
    '',
    'Whoever read it could act with its rights until now. Look through the audit trail, then make a new key and keep it',
    'out of files that are shared.',
  ].join('\n')

/** Ends a key that was proved to be in public. Only the door of verified reports runs it. */
const retireLeakedKey = operation({
  name: 'retireLeakedKey',
  requires: isPublic,
  input: z.strictObject({ id: z.uuid(), url: z.string().nullable(), source: z.string().nullable() }),
  runAs: 'system',
  target: {
    noun: 'API key',
    find: (tx, { id }) =>
      tx.apiKey.findFirst({
        where: { id },
        select: { name: true, hint: true, orgId: true, userId: true, user: { select: { email: true } } },
      }),
  },
  run: async ({ tx, row, platform, actor, now, afterCommit }, { id, url }) => {
    const ended = await endKeys(tx, id, now, 'leaked')
    if (row && ended.length) {
      const mail = { to: row.user.email, subject: 'An API key of yours was leaked', text: letter(row, url) }
      await mailer(platform).send({ tx, actor, now, afterCommit }, mail)
    }
    return { id, ended, orgId: row?.orgId ?? '', userId: row?.userId ?? '' }
  },
  audit: ({ id, ended, orgId, userId }, { url, source }) => ({
    action: 'apiKey.leaked',
    target: id,
    detail: { reason: 'leaked', ended, url, source },
    orgId,
    userId,
  }),
})

/** A key of ours, whatever became of it since. Its secret must match: a report cannot end a key by its public half. */
async function ourKey(platform: Platform, token: string): Promise<{ id: string; revokedAt: Date | null } | null> {
  const parts = parseApiKey(token)
  if (!parts) return null
  const row = await platform.database.read(system(), (tx) =>
    tx.apiKey.findUnique({
      where: { publicId: parts.publicId },
      select: { id: true, orgId: true, secretHash: true, revokedAt: true },
    }),
  )
  return row && (await platform.hasher.matches(parts.secret, row.secretHash, row.orgId)) ? row : null
}

/** Judges every token of a verified report and ends the real ones. A report that comes again changes nothing. */
export async function takeLeakReport(platform: Platform, body: string, origin: Origin): Promise<Verdict[]> {
  let raw: unknown
  try {
    raw = JSON.parse(body) as unknown
  } catch (cause) {
    throw badInput([{ path: [], message: 'expected a body of well-formed JSON' }], cause)
  }
  const verdicts: Verdict[] = []
  for (const { token, type, url, source } of parse(report, raw)) {
    const key = await ourKey(platform, token)
    if (key && !key.revokedAt)
      await retireLeakedKey.run(
        { actor: system(origin), platform },
        { id: key.id, url: place(url), source: source ?? null },
      )
    const token_hash = createHash('sha256').update(token).digest('hex')
    verdicts.push({ token_hash, token_type: type, label: key ? 'true_positive' : 'false_positive' })
  }
  return verdicts
}
