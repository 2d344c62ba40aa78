import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { member, system, type Member, type Origin } from '../../kernel/actor.ts'
import { appendAudit } from '../../kernel/audit.ts'
import { boundedCache } from '../../kernel/boundedCache.ts'
import { sql } from '../../kernel/database/door.ts'
import { AppError } from '../../kernel/errors.ts'
import { lockout } from '../../kernel/lockout.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import type { Secret } from '../../kernel/secret.ts'
import { isWithin, sourceOf } from '../../kernel/source.ts'
import { parseApiKey } from './format.ts'
import { keyUse } from './keyUse.ts'

/**
 * Remembers, by a keyed digest that never leaves the process, whether a secret matched a stored hash. It spares bcrypt and
 * nothing else: the row is read at every request, so revocation, expiry and limits hold at once.
 */
class VerdictCache {
  readonly #key = randomBytes(32)
  readonly #matched = boundedCache<Buffer>(10_000)
  // A program that keeps sending one dead key is one bad secret, not a thousand guesses.
  readonly #failed = boundedCache<true>(10_000)
  readonly #running = new Map<string, Promise<boolean>>()

  #digest(publicId: string, secret: Secret, hash: string): Buffer {
    const text = `${publicId}\0${hash}\0${secret.reveal()}`
    return createHmac('sha256', this.#key).update(text).digest()
  }

  matched(publicId: string, secret: Secret, hash: string): boolean {
    const known = this.#matched.get(publicId)
    return known !== undefined && timingSafeEqual(known, this.#digest(publicId, secret, hash))
  }

  failed(publicId: string, secret: Secret, hash: string): boolean {
    return this.#failed.has(this.#digest(publicId, secret, hash).toString('base64'))
  }

  keep(publicId: string, secret: Secret, hash: string, same: boolean): void {
    const digest = this.#digest(publicId, secret, hash)
    if (same) this.#matched.set(publicId, digest)
    else this.#failed.set(digest.toString('base64'), true)
  }

  /** Callers of one source with the same secret share one verification while it runs: many at once are one guess, too. */
  once(source: string, publicId: string, secret: Secret, hash: string, verify: () => Promise<boolean>) {
    const key = `${source}\0${this.#digest(publicId, secret, hash).toString('base64')}`
    const running = this.#running.get(key) ?? verify().finally(() => this.#running.delete(key))
    this.#running.set(key, running)
    return running
  }
}

const verdicts = resource(() => new VerdictCache())

// Sources are locked, never keys: nobody can lock a stranger's key out. A key that this instance knows needs no bcrypt, so
// it works on even from a source that is locked.
const bySource = lockout('apiKey:source', (config) => ({
  freeFailures: config.apiKeyFailuresPerSource,
  firstLockSeconds: config.firstLockSeconds,
  longestLockSeconds: config.longestLockSeconds,
  forgetSeconds: 3600,
  onSuccess: 'giveBack',
  code: 'RATE_LIMITED',
  message: 'Too many bad API keys from your address. Try again later.',
}))

// What is known of keys that were good here a moment ago. It spares the look-up where the database confirms the credential
// with the query itself (`app.identify`), and it is never believed without that.
const remembered = resource(() => boundedCache<Row>(10_000, 30_000))

const refused = (): AppError => new AppError('UNAUTHENTICATED', 'The API key is not valid.')

type Row = {
  id: string
  orgId: string
  userId: string
  secretHash: string
  scopes: string[]
  role: Member['role']
  allowedCidrs: string[]
  allowedServiceIds: string[]
  allowedOperationIds: string[]
  requestsPerMinute: number | null
  lastUsedAt: Date | null
}

async function find(platform: Platform, publicId: string, origin: Origin): Promise<Row | null> {
  const rows = await platform.database.statement<Row>(
    system(origin),
    sql`
      SELECT k.id::text, k.org_id::text AS "orgId", k.user_id::text AS "userId", k.secret_hash AS "secretHash", k.scopes, m.role::text AS role,
        k.allowed_cidrs AS "allowedCidrs", k.allowed_service_ids::text[] AS "allowedServiceIds",
        k.allowed_operation_ids::text[] AS "allowedOperationIds",
        k.requests_per_minute AS "requestsPerMinute", k.last_used_at AS "lastUsedAt"
      FROM api_keys k JOIN memberships m ON m.org_id = k.org_id AND m.user_id = k.user_id JOIN users u ON u.id = k.user_id
      WHERE k.public_id = ${publicId} AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
        AND m.deactivated_at IS NULL AND u.disabled_at IS NULL`,
  )
  return rows[0] ?? null
}

async function recordLock(platform: Platform, origin: Origin, row: Row | null, seconds: number): Promise<void> {
  const about = row ? { orgId: row.orgId, userId: row.userId, target: row.id } : {}
  const entry = { action: 'apiKey.sourceLocked', detail: { seconds, source: sourceOf(origin) }, ...about }
  const as = system(origin)
  await platform.database.transact(as, (tx) => appendAudit(tx, as, entry, 'denied', platform.clock()))
}

/** One guess at a secret, under the lock of its source. An unknown id takes the work of a known one. */
async function guess(platform: Platform, publicId: string, secret: Secret, row: Row | null, origin: Origin) {
  const attempt = await bySource(platform).begin(sourceOf(origin))
  const same = await platform.hasher
    .matches(secret, row?.secretHash ?? null, row?.orgId ?? sourceOf(origin))
    .catch(async (error: unknown) => {
      await attempt.withdraw()
      throw error
    })
  verdicts(platform).keep(publicId, secret, row?.secretHash ?? '', same)
  if (same) await attempt.succeeded()
  else {
    const seconds = attempt.failed()
    if (seconds !== null) await recordLock(platform, origin, row, seconds)
  }
  return same
}

/** Whether the secret is the row's. */
async function matches(platform: Platform, publicId: string, secret: Secret, row: Row | null, origin: Origin) {
  const cache = verdicts(platform)
  const hash = row?.secretHash ?? ''
  if (row && cache.matched(publicId, secret, hash)) return true
  if (cache.failed(publicId, secret, hash)) return false
  return cache.once(sourceOf(origin), publicId, secret, hash, () => guess(platform, publicId, secret, row, origin))
}

function memberOfRow(platform: Platform, row: Row, origin: Origin): Member {
  const {
    id,
    userId,
    orgId,
    role,
    scopes,
    allowedCidrs,
    allowedServiceIds,
    allowedOperationIds,
    requestsPerMinute,
    lastUsedAt,
  } = row
  if (allowedCidrs.length && !isWithin(origin, allowedCidrs)) throw refused()
  keyUse(platform).note(id, lastUsedAt)
  const limits = {
    serviceIds: allowedServiceIds.length ? allowedServiceIds : null,
    operationIds: allowedOperationIds.length ? allowedOperationIds : null,
    requestsPerMinute,
  }
  const facts = { kind: 'apiKey', userId, orgId, role, credentialId: id, mfaAt: null, origin, given: scopes } as const
  return member({ ...facts, limits }, platform.clock())
}

/** The member that an API key speaks for. Throws `UNAUTHENTICATED`, the same for every reason. */
export async function memberOfApiKey(platform: Platform, text: string, origin: Origin): Promise<Member> {
  const parts = parseApiKey(text)
  if (!parts) throw refused()
  const { publicId, secret } = parts
  const row = await find(platform, publicId, origin)
  if (!row) remembered(platform).delete(publicId)
  if (!(await matches(platform, publicId, secret, row, origin)) || !row) throw refused()
  remembered(platform).set(publicId, row)
  return memberOfRow(platform, row, origin)
}

/**
 * The member that a key spoke for a moment ago, without asking the database; null where this instance does not know. Only for
 * work whose every statement has the database confirm key, membership and role: when it refuses, `forgetApiKey` and ask anew.
 */
export function recallApiKey(platform: Platform, text: string, origin: Origin): Member | null {
  const parts = parseApiKey(text)
  const row = parts && remembered(platform).get(parts.publicId)
  if (!parts || !row || !verdicts(platform).matched(parts.publicId, parts.secret, row.secretHash)) return null
  // From elsewhere it is refused where refusals count against their source.
  if (row.allowedCidrs.length && !isWithin(origin, row.allowedCidrs)) return null
  const found = memberOfRow(platform, row, origin)
  row.lastUsedAt = platform.clock()
  return found
}

export const forgetApiKey = (platform: Platform, text: string): void => {
  const parts = parseApiKey(text)
  if (parts) remembered(platform).delete(parts.publicId)
}
