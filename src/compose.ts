import { mkdir, open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from './config.ts'
import { system } from './kernel/actor.ts'
import { systemClock, type Clock } from './kernel/clock.ts'
import { Database } from './kernel/database/door.ts'
import { openEmbedded } from './kernel/database/embedded.ts'
import { openPostgres } from './kernel/database/postgres.ts'
import type { Server } from './kernel/database/server.ts'
import { Hasher } from './kernel/hashing.ts'
import type { Log } from './kernel/log.ts'
import { createOutbound, type Outbound, type OutboundOptions, type Resolve } from './kernel/outbound.ts'
import type { Platform } from './kernel/platform.ts'
import { openTracing } from './kernel/tracing.ts'
import { dataCategories, MasterKey, newWrappedKey, Vault, type WrappedKey } from './kernel/vault.ts'

type Overrides = {
  clock?: Clock
  resolve?: Resolve
  onStatement?: (text: string) => void
  onExchange?: (unit: object, texts: readonly string[]) => void
  /** In the place of one at the configured cost, for tests that are not about it; no setting reaches below that. */
  hasher?: Hasher
  /** An origin on loopback that upstream calls may reach besides the operator's networks: the demo's own service. */ demoOrigin?: string
}

/** The configured master key, or the one of the data folder, which is made on first start and readable by its owner alone. */
async function masterKey({ masterKey: configured, dataDirectory }: Config): Promise<MasterKey> {
  if (configured) return new MasterKey(configured)
  const path = join(dataDirectory, 'master.key')
  await mkdir(dataDirectory, { recursive: true, mode: 0o700 })
  try {
    const file = await open(path, 'wx', 0o600)
    await file.writeFile(`${MasterKey.generate()}\n`)
    await file.sync()
    await file.close()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  return new MasterKey((await readFile(path, 'utf8')).trim())
}

// Takes the creation of the first data keys one instance at a time.
const creationLock = 4_101_968_212

async function openVault(database: Database, master: MasterKey): Promise<Vault> {
  const rows = await database.transact(system(), async (tx) => {
    await tx.$executeRaw`SELECT pg_advisory_xact_lock(${creationLock})`
    const known = await tx.dataKey.findMany({ select: { category: true, version: true, wrapped: true } })
    const missing = dataCategories.filter((category) => !known.some((key) => key.category === category))
    const made = missing.map((category) => newWrappedKey(master, category, 1))
    if (made.length)
      await tx.dataKey.createMany({ data: made.map((key) => ({ ...key, wrapped: Uint8Array.from(key.wrapped) })) })
    return [...(known as WrappedKey[]), ...made]
  })
  try {
    return new Vault(master, rows)
  } catch (cause) {
    throw new Error(
      'The master key is not the one that this database was set up with. Set MASTER_KEY or MASTER_KEY_FILE to that one.',
      { cause },
    )
  }
}

function openServer(config: Config, master: MasterKey): Promise<Server> {
  if (!config.databaseUrl) return openEmbedded(config.dataDirectory)
  return openPostgres({
    url: config.databaseUrl,
    appUrl: config.databaseAppUrl,
    systemUrl: config.databaseSystemUrl,
    poolSize: config.databasePoolSize,
    statementTimeoutSeconds: config.requestTimeoutSeconds,
    master,
  })
}

function openOutbound(config: Config, { resolve, demoOrigin }: Overrides): Outbound {
  const options: OutboundOptions = {
    allowedCidrs: config.upstreamAllowedCidrs,
    connectTimeoutMs: 10_000,
    // An upstream that answers in JSON sends headers only when the tool is done; the gateway keeps the deadline of a call.
    headersTimeoutMs: config.upstreamTimeoutSeconds * 10_000,
    bodyTimeoutMs: config.upstreamTimeoutSeconds * 1000,
    maxResponseBytes: 16 * 2 ** 20,
    maxRedirects: 3,
    // Each caller's session at an upstream may hold a stream of changes open beside its calls.
    connectionsPerOrigin: 4096,
    ...(resolve ? { resolve } : {}),
  }
  const outbound = createOutbound(options)
  if (!demoOrigin) return outbound
  // Loopback stays closed but for this one origin, by a door of its own that follows no redirect.
  const demo = createOutbound({ ...options, allowedCidrs: ['127.0.0.1/32'], maxRedirects: 0 })
  const isDemo = (input: string | URL | Request): boolean =>
    new URL(input instanceof Request ? input.url : input).origin === demoOrigin
  return {
    fetch: (input, init) => (isDemo(input) ? demo : outbound).fetch(input, init),
    exchange: (url, ...rest) => (isDemo(url) ? demo : outbound).exchange(url, ...rest),
    close: async () => void (await Promise.all([demo.close(), outbound.close()])),
  }
}

/** Opens what an instance stands on: the database with its migrations applied, the vault, the outgoing door. */
export async function openPlatform(config: Config, log: Log, overrides: Overrides = {}): Promise<Platform> {
  const master = await masterKey(config)
  const server = await openServer(config, master)
  const database = new Database(server, {
    timeoutSeconds: config.requestTimeoutSeconds,
    ...(overrides.onStatement ? { onStatement: overrides.onStatement } : {}),
    ...(overrides.onExchange ? { onExchange: overrides.onExchange } : {}),
  })
  try {
    return {
      config,
      publicUrl: config.publicUrl ?? `http://${config.host}:${config.port}`,
      clock: overrides.clock ?? systemClock,
      log,
      database,
      vault: await openVault(database, master),
      hasher: overrides.hasher ?? new Hasher(config.bcryptCost),
      outbound: openOutbound(config, overrides),
      tracing: await openTracing(config, log),
    }
  } catch (error) {
    await database.close()
    throw error
  }
}
