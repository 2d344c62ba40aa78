import { createHash } from 'node:crypto'
import pg from 'pg'
import type { MasterKey } from '../vault.ts'
import type { DatabaseRole } from './identity.ts'
import { migrate } from './migrate.ts'
import type { Server } from './server.ts'

type Options = {
  url: string
  appUrl: string | undefined
  systemUrl: string | undefined
  poolSize: number
  statementTimeoutSeconds: number
  master: MasterKey
}

/**
 * Logins of this database's own, members of the two group roles. Their passwords are derived from the master key, so
 * every instance knows them and none is stored. A role name holds for the whole server; the suffix keeps databases apart.
 */
async function ensureLogin(
  owner: pg.ClientBase,
  role: DatabaseRole,
  database: string,
  master: MasterKey,
): Promise<{ user: string; password: string }> {
  const user = `${role}_${createHash('sha256').update(database).digest('hex').slice(0, 12)}`
  const password = master.derive(`database login ${user}`).toString('base64url')
  const exists = await owner.query('SELECT FROM pg_roles WHERE rolname = $1', [user])
  if (!exists.rowCount)
    await owner.query(`CREATE ROLE ${user} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS IN ROLE ${role}`)
  await owner.query(`ALTER ROLE ${user} PASSWORD '${password}'`)
  return { user, password }
}

/** Applies the migrations as the owner, then lets go of that login: requests run as the unprivileged roles alone. */
export async function openPostgres({
  url,
  appUrl,
  systemUrl,
  poolSize,
  statementTimeoutSeconds,
  master,
}: Options): Promise<Server> {
  const owner = new pg.Client({ connectionString: url })
  await owner.connect()
  const pools = new Map<DatabaseRole, pg.Pool>()
  const common = {
    max: poolSize,
    keepAlive: true,
    connectionTimeoutMillis: statementTimeoutSeconds * 1000,
    statement_timeout: statementTimeoutSeconds * 1000,
    idle_in_transaction_session_timeout: statementTimeoutSeconds * 1000,
  }
  try {
    await migrate(owner)
    const { rows } = await owner.query<{ name: string }>('SELECT current_database() AS name')
    for (const [role, given] of [
      ['mcp_app', appUrl],
      ['mcp_system', systemUrl],
    ] as const) {
      // prettier-ignore
      const address = new URL(given ?? url)
      if (!given) {
        const login = await ensureLogin(owner, role, rows[0]?.name ?? '', master)
        address.username = login.user
        address.password = login.password
      }
      const pool = new pg.Pool({ ...common, connectionString: address.href })
      // An idle connection that the server closes is replaced at the next use.
      pool.on('error', () => {})
      // One that ends while it is at work (a timeout in a transaction, a failover) fails that work; without a listener it
      // would end the process.
      pool.on('connect', (client) => void client.on('error', () => {}))
      pools.set(role, pool)
    }
  } finally {
    await owner.end()
  }
  return {
    embedded: false,
    pool: (role) => {
      const pool = pools.get(role)
      if (!pool) throw new Error(`No pool for ${role}.`)
      return pool
    },
    close: async () => {
      await Promise.all([...pools.values()].map((pool) => pool.end()))
    },
  }
}
