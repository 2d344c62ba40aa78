import { PGlite } from '@electric-sql/pglite'
import { join } from 'node:path'
import pg from 'pg'
import type { TestDatabase } from '../harness/database.ts'

export type Row = Record<string, unknown>
export type Outcome = { rows: Row[]; count: number }

/** SQL without any of the platform's own code in between: as the owner, who takes roles as a test needs them. */
export type RawDatabase = {
  query(text: string, values?: unknown[]): Promise<Outcome>
  /** Runs the work in a transaction that is always rolled back. */
  trial<T>(work: () => Promise<T>): Promise<T>
  /** The SQLSTATE that a statement fails with, or its outcome; what came before it in the transaction stands. */
  attempt(text: string, values?: unknown[]): Promise<Outcome | string>
  /** Inside a trial: the rest of the work runs as this role, with these claims or none. */
  become(role: 'mcp_app' | 'mcp_system' | null, claims?: Row | null): Promise<void>
  close(): Promise<void>
}

type Engine = Pick<RawDatabase, 'query' | 'close'>

async function connect({ ownerUrl, settings }: TestDatabase): Promise<Engine> {
  if (!ownerUrl) {
    const engine = await PGlite.create({ dataDir: join(settings['DATA_DIR'] ?? '', 'database') })
    return {
      query: async (text, values) => {
        const { rows, affectedRows } = await engine.query<Row>(text, values)
        return { rows, count: affectedRows ?? rows.length }
      },
      close: () => engine.close(),
    }
  }
  const client = new pg.Client({ connectionString: ownerUrl })
  await client.connect()
  return {
    query: async (text, values) => {
      const { rows, rowCount } = await client.query<Row>(text, values)
      return { rows, count: rowCount ?? 0 }
    },
    close: () => client.end(),
  }
}

/** Opens the database of a test that no platform holds open (the embedded one has a single user). */
export async function openRaw(database: TestDatabase): Promise<RawDatabase> {
  const { query, close } = await connect(database)
  return {
    query,
    close,
    async trial(work) {
      await query('BEGIN')
      try {
        return await work()
      } finally {
        await query('ROLLBACK')
      }
    },
    async attempt(text, values) {
      await query('SAVEPOINT attempt')
      try {
        const outcome = await query(text, values)
        await query('RELEASE SAVEPOINT attempt')
        return outcome
      } catch (error) {
        await query('ROLLBACK TO SAVEPOINT attempt')
        return String((error as { code?: string }).code ?? error)
      }
    },
    async become(role, claims = null) {
      await query(role ? `SET LOCAL ROLE ${role}` : 'RESET ROLE')
      await query("SELECT set_config('request.jwt.claims', $1, true)", [claims ? JSON.stringify(claims) : ''])
    },
  }
}
