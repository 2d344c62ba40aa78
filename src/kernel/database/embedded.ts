import { PGlite } from '@electric-sql/pglite'
import { createPgConfig } from '@electric-sql/pglite/node-postgres'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { lockDirectory } from './directoryLock.ts'
import { migrate } from './migrate.ts'
import type { Server } from './server.ts'

/** PostgreSQL writes zeros over its buffers at each start; the files behind them are in the system's cache anyway. */
const sharedBuffers = '32MB'

/**
 * PostgreSQL in this process, in `<directory>/database`. It has a single session, so units of work take turns, and every
 * exchange takes its role for its own transaction. Nothing but this lock keeps a second process from the same files.
 */
export async function openEmbedded(directory: string): Promise<Server & { fresh: boolean }> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const unlock = await lockDirectory(directory)
  try {
    const engine = await PGlite.create({
      dataDir: join(directory, 'database'),
      startParams: [...PGlite.defaultStartParams, '-c', `shared_buffers=${sharedBuffers}`],
    })
    const pool = new pg.Pool({ ...createPgConfig(engine), max: 1, idleTimeoutMillis: 0 })
    const client = await pool.connect()
    const applied = await migrate(client).finally(() => client.release())
    const close = async (): Promise<void> => {
      await pool.end()
      await engine.close()
      await unlock()
    }
    return { embedded: true, fresh: applied.includes('0001_foundation'), pool: () => pool, close }
  } catch (error) {
    await unlock()
    throw error
  }
}
