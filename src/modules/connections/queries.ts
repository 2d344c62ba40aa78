import { boundedCache } from '../../kernel/boundedCache.ts'
import { AppError } from '../../kernel/errors.ts'
import { resource, type Platform } from '../../kernel/platform.ts'
import { Secret } from '../../kernel/secret.ts'
import { mustConnect, renew, type Access } from './renewal.ts'
import { openToken, type Ownership } from './tokens.ts'

/** A connection as `app.service_connection` shows it to the caller who may use it. */
export type ConnectionRow = {
  id: string
  owner: string
  sealed_access: string | null
  refreshable: boolean
  version: number
  expires_at: string | null
  broken: boolean
}

/** What an upstream is sent, and what to do when it is refused. */
export type ConnectedCredential = {
  /** The same until the account is connected again. */
  key: string
  /** Always the newest tokens that this instance knows of. */
  headers: ReadonlyMap<string, Secret>
  /** Whether it is worth asking once more, with other headers, after this value was refused. */
  renew: (refused: string) => Promise<boolean>
}

/** Tokens end this much early, for calls that take their time and clocks that differ. */
const leewayMs = 10_000
/** A token that is refused so soon after it was renewed is not refused for its age. */
const patienceMs = 60_000

type Live = {
  headers: Map<string, Secret>
  version: number
  expiresAt: Date | null
  /** After a refusal: shared by all who were refused at once. */
  renewal: Promise<void> | null
  renewedAt: number
}

const memory = resource(() => ({ live: boundedCache<Live>(10_000) }))

/** The one set of headers of a connection, brought up to date; an older row that was read meanwhile changes nothing. */
function keep(platform: Platform, id: string, { token, version, expiresAt }: Access): Live {
  const { live } = memory(platform)
  const held = live.get(id) ?? {
    headers: new Map<string, Secret>(),
    version: 0,
    expiresAt: null,
    renewal: null,
    renewedAt: 0,
  }
  if (version > held.version) {
    held.headers.set('authorization', new Secret(`Bearer ${token.reveal()}`))
    Object.assign(held, { version, expiresAt })
  }
  live.set(id, held)
  return held
}

/**
 * The access token of a connected account, renewed first where it has run out.
 * @throws AppError `SERVICE_UNCONFIGURED` where there is no account, or it must be connected again
 */
export async function connectedCredential(
  platform: Platform,
  { orgId, serviceId, owner }: Ownership,
  row: ConnectionRow | null,
): Promise<ConnectedCredential> {
  if (!row) throw mustConnect({ owner }, owner === 'shared' ? 'This service needs the organisation’s account first' : 'This service needs your own account first') // prettier-ignore
  const of = { orgId, serviceId, owner: row.owner }
  if (row.broken || row.sealed_access === null) throw mustConnect(of, 'The account must be connected again')
  const expiresAt = row.expires_at === null ? null : new Date(row.expires_at)
  const live = keep(platform, row.id, { token: openToken(platform.vault, of, 'access', row.sealed_access), version: row.version, expiresAt }) // prettier-ignore
  const left = (live.expiresAt?.getTime() ?? Infinity) - platform.clock().getTime()
  if (left < leewayMs) await renewAged(platform, row, of, live, left)
  return { key: row.id, headers: live.headers, renew: (refused) => renewRefused(platform, row, of, live, refused) }
}

async function renewAged(
  platform: Platform,
  row: ConnectionRow,
  of: Ownership,
  live: Live,
  leftMs: number,
): Promise<void> {
  if (!row.refreshable) {
    if (leftMs > 0) return
    throw mustConnect(of, 'The account must be connected again')
  }
  try {
    keep(platform, row.id, await renew(platform, row.id, of, live.version))
  } catch (error) {
    const mayWait = error instanceof AppError && error.code !== 'SERVICE_UNCONFIGURED'
    if (!mayWait || leftMs <= 0) throw error
  }
}

async function renewRefused(
  platform: Platform,
  row: ConnectionRow,
  of: Ownership,
  live: Live,
  refused: string,
): Promise<boolean> {
  const isNewer = (): boolean => live.headers.get('authorization')?.reveal() !== refused
  if (isNewer()) return true
  if (!row.refreshable) throw mustConnect(of, 'The service no longer takes the connected account')
  if (!live.renewal) {
    if (Date.now() - live.renewedAt < patienceMs) return false
    live.renewedAt = Date.now()
    live.renewal = renew(platform, row.id, of, live.version)
      .then((access) => void keep(platform, row.id, access))
      .finally(() => (live.renewal = null))
  }
  await live.renewal
  return isNewer()
}
