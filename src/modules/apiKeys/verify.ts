import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { member, system, type Member, type Origin } from '../../kernel/actor.ts'
import { AppError } from '../../kernel/errors.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import type { Secret } from '../../kernel/secret.ts'
import { parseApiKey } from './format.ts'

/**
 * Remembers, by a keyed digest that never leaves the process, that a secret matched a stored hash. It spares bcrypt and
 * nothing else: the row is read at every request, so revocation and expiry hold at once.
 */
class MatchCache {
  readonly #key = randomBytes(32)
  readonly #matched = new LRUCache<string, Buffer>({ max: 10_000 })

  #digest(secret: Secret, hash: string): Buffer {
    return createHmac('sha256', this.#key).update(hash).update('\0').update(secret.reveal()).digest()
  }

  has(publicId: string, secret: Secret, hash: string): boolean {
    const known = this.#matched.get(publicId)
    return known !== undefined && timingSafeEqual(known, this.#digest(secret, hash))
  }

  add(publicId: string, secret: Secret, hash: string): void {
    this.#matched.set(publicId, this.#digest(secret, hash))
  }
}

const matches = resource(() => new MatchCache())

const refused = (): AppError => new AppError('UNAUTHENTICATED', 'The API key is not valid.')

type Row = { id: string; orgId: string; userId: string; secretHash: string; scopes: string[]; role: Member['role'] }

async function find(platform: Platform, publicId: string, origin: Origin): Promise<Row | null> {
  const rows = await platform.database.read(
    system(origin),
    (tx) => tx.$queryRaw<Row[]>`
      SELECT k.id::text, k.org_id::text AS "orgId", k.user_id::text AS "userId", k.secret_hash AS "secretHash", k.scopes, m.role::text AS role
      FROM api_keys k JOIN memberships m ON m.org_id = k.org_id AND m.user_id = k.user_id JOIN users u ON u.id = k.user_id
      WHERE k.public_id = ${publicId} AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
        AND m.deactivated_at IS NULL AND u.disabled_at IS NULL`,
  )
  return rows[0] ?? null
}

/** The member that an API key speaks for. Throws `UNAUTHENTICATED`, the same for every reason. */
export async function memberOfApiKey(platform: Platform, text: string, origin: Origin): Promise<Member> {
  const parts = parseApiKey(text)
  if (!parts) throw refused()
  const { publicId, secret } = parts
  const row = await find(platform, publicId, origin)
  const cache = matches(platform)
  if (!row || !cache.has(publicId, secret, row.secretHash)) {
    // An unknown id takes the work of a known one.
    if (!(await platform.hasher.matches(secret, row?.secretHash ?? null)) || !row) throw refused()
    cache.add(publicId, secret, row.secretHash)
  }
  const { id, userId, orgId, role, scopes } = row
  return member(
    { kind: 'apiKey', userId, orgId, role, credentialId: id, mfaAt: null, origin, given: scopes },
    platform.clock(),
  )
}
