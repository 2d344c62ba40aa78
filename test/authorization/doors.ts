import pg from 'pg'
import { createApp } from '../../src/edge/app.ts'
import { Database } from '../../src/kernel/database/door.ts'
import { openEmbedded } from '../../src/kernel/database/embedded.ts'
import { openPostgres } from '../../src/kernel/database/postgres.ts'
import type { Server } from '../../src/kernel/database/server.ts'
import { createOutbound } from '../../src/kernel/outbound.ts'
import type { Platform } from '../../src/kernel/platform.ts'
import { MasterKey } from '../../src/kernel/vault.ts'
import { buildSchema } from '../../src/schema.ts'
import type { TestDatabase } from '../harness/database.ts'
import { origin, readAnswer, type Answer, type Credential } from '../harness/world.ts'

export type Door = {
  platform: Platform
  post(body: unknown, as?: Credential): Promise<Answer<any>>
}

/** One database, reached as the platform reaches it and as its owner, whom row level security lets through everywhere. */
export type Doors = {
  /** As in production. */
  guarded: Door
  /** The same platform without ownership filters: row level security alone is left. */
  unfiltered: Door
  /** The same platform, whose every statement runs as the owner of the tables: the filters alone are left. */
  asOwner: Door
  /** Neither filters nor row level security: the rules are all that is left. */
  bare: Door
  /** SQL as the owner. */
  sql(text: string, values?: unknown[]): Promise<Record<string, unknown>[]>
  close(): Promise<void>
}

const left = async (): Promise<void> => {}

type Filter = NonNullable<ConstructorParameters<typeof Database>[1]['filtered']>

function door(base: Platform, server: Server, filtered?: Filter): Door & { close(): Promise<void> } {
  const outbound = createOutbound({
    allowedCidrs: base.config.upstreamAllowedCidrs,
    connectTimeoutMs: 1000,
    headersTimeoutMs: 5000,
    bodyTimeoutMs: 5000,
    maxResponseBytes: 2 ** 20,
    maxRedirects: 0,
    connectionsPerOrigin: 64,
  })
  const platform: Platform = {
    ...base,
    outbound,
    database: new Database(server, { timeoutSeconds: 30, ...(filtered ? { filtered } : {}) }),
  }
  const app = createApp(platform, buildSchema())
  return {
    platform,
    close: () => app.close(),
    post: async (body, as = {}) =>
      readAnswer(
        await app.fetch(
          new Request(`${origin}/graphql`, {
            method: 'POST',
            headers: { 'content-type': 'application/json', ...as },
            body: JSON.stringify(body),
          }),
          { remoteAddress: '192.0.2.1' },
        ),
      ),
  }
}

/** Opens the database of a platform that has closed, whose keys and settings the new ones share. */
export async function openDoors(database: TestDatabase, base: Platform): Promise<Doors> {
  const server = database.ownerUrl
    ? await openPostgres({
        url: database.ownerUrl,
        appUrl: undefined,
        systemUrl: undefined,
        poolSize: 4,
        statementTimeoutSeconds: 30,
        master: new MasterKey(MasterKey.generate()),
      })
    : await openEmbedded(database.settings['DATA_DIR'] ?? '')
  const owners = database.ownerUrl
    ? // Its connections are still saying goodbye when it has ended, and the drop of the database cuts that short.
      new pg.Pool({ connectionString: database.ownerUrl, max: 4 }).on('error', () => undefined)
    : server.pool('mcp_app')
  const shared: Server = { embedded: server.embedded, pool: (role) => server.pool(role), close: left }
  const guarded = door(base, shared)
  const unfiltered = door(base, shared, (tx) => tx)
  const asOwner = door(base, { embedded: false, pool: () => owners, close: left })
  const bare = door(base, { embedded: false, pool: () => owners, close: left }, (tx) => tx)
  return {
    guarded,
    unfiltered,
    asOwner,
    bare,
    sql: async (text, values) => (await owners.query(text, values)).rows as Record<string, unknown>[],
    async close() {
      await guarded.close()
      await unfiltered.close()
      await asOwner.close()
      await bare.close()
      if (database.ownerUrl) await owners.end()
      await server.close()
    },
  }
}
