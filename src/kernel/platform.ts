import type { Config } from '../config.ts'
import type { Clock } from './clock.ts'
import type { Database } from './database/door.ts'
import type { Hasher } from './hashing.ts'
import type { Log } from './log.ts'
import type { Outbound } from './outbound.ts'
import type { Tracing } from './tracing.ts'
import type { Vault } from './vault.ts'

/** What one running instance stands on. Made once at start, handed down, never global. */
export type Platform = {
  readonly config: Config
  /** The address that callers use: issuer and audience of tokens, base of printed links. */
  readonly publicUrl: string
  readonly clock: Clock
  readonly log: Log
  readonly database: Database
  readonly vault: Vault
  readonly hasher: Hasher
  readonly outbound: Outbound
  /** Null where no collector is configured. */
  readonly tracing: Tracing | null
}

type Closable = { close?: () => Promise<void> | void }

const made = new WeakMap<Platform, Map<object, unknown>>()

/**
 * Something that a module needs once an instance (a key ring, a connection pool): made at first use, the same for the
 * same platform, closed with it.
 */
export function resource<T extends object>(make: (platform: Platform) => T): (platform: Platform) => T {
  const key = {}
  return (platform) => {
    let all = made.get(platform)
    if (!all) made.set(platform, (all = new Map<object, unknown>()))
    let one = all.get(key) as T | undefined
    if (!one) all.set(key, (one = make(platform)))
    return one
  }
}

/** Closes what was made for this platform, latest first. */
export async function closeResources(platform: Platform): Promise<void> {
  const all = [...(made.get(platform)?.values() ?? [])].reverse() as Closable[]
  made.delete(platform)
  for (const each of all) await each.close?.()
}
