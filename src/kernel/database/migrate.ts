import { createHash, randomUUID } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ClientBase } from 'pg'

const directory = fileURLToPath(new URL('../../../prisma/migrations', import.meta.url))

// The ledger and the lock of `prisma migrate deploy`, so that either tool finds the other's work.
const prismaLock = 72_707_369
const ledger = `CREATE TABLE IF NOT EXISTS public._prisma_migrations (
  id VARCHAR(36) PRIMARY KEY NOT NULL,
  checksum VARCHAR(64) NOT NULL,
  finished_at TIMESTAMPTZ,
  migration_name VARCHAR(255) NOT NULL,
  logs TEXT,
  rolled_back_at TIMESTAMPTZ,
  started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  applied_steps_count INTEGER NOT NULL DEFAULT 0
)`

type Migration = { name: string; sql: string; checksum: string }

async function migrations(): Promise<Migration[]> {
  const entries = await readdir(directory, { withFileTypes: true })
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name).sort() // prettier-ignore
  return Promise.all(
    names.map(async (name) => {
      const sql = await readFile(join(directory, name, 'migration.sql'), 'utf8')
      return { name, sql, checksum: createHash('sha256').update(sql).digest('hex') }
    }),
  )
}

type Applied = { migration_name: string; checksum: string; finished_at: Date | null }

async function apply(client: ClientBase, { name, sql, checksum }: Migration): Promise<void> {
  await client.query('BEGIN')
  try {
    await client.query(sql)
    await client.query(
      `INSERT INTO public._prisma_migrations (id, checksum, migration_name, started_at, finished_at, applied_steps_count)
       VALUES ($1, $2, $3, now(), now(), 1)`,
      [randomUUID(), checksum, name],
    )
    await client.query('COMMIT')
  } catch (error) {
    await client.query('ROLLBACK')
    throw new Error(`Migration ${name} failed and was rolled back.`, { cause: error })
  }
}

/**
 * Applies, as the owner, what the database lacks: once, in order, each in a transaction, under the lock that
 * `prisma migrate deploy` takes. Answers with the names it applied. Refuses a database whose history was edited.
 */
export async function migrate(client: ClientBase): Promise<string[]> {
  const all = await migrations()
  await client.query(`SELECT pg_advisory_lock(${prismaLock})`)
  try {
    await client.query(ledger)
    const { rows } = await client.query<Applied>(
      'SELECT migration_name, checksum, finished_at FROM public._prisma_migrations WHERE rolled_back_at IS NULL',
    )
    const applied = new Map(rows.map((row) => [row.migration_name, row]))
    const missing: string[] = []
    for (const migration of all) {
      const row = applied.get(migration.name)
      if (row && row.finished_at === null)
        throw new Error(`Migration ${migration.name} was begun elsewhere and never finished.`)
      if (row && row.checksum !== migration.checksum)
        throw new Error(`Migration ${migration.name} was changed after it was applied.`)
      if (row) continue
      await apply(client, migration)
      missing.push(migration.name)
    }
    return missing
  } finally {
    await client.query(`SELECT pg_advisory_unlock(${prismaLock})`)
  }
}
