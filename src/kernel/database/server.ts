import type { Pool } from 'pg'
import type { DatabaseRole } from './identity.ts'

/** A database with its migrations applied, reachable as each of the unprivileged roles. */
export type Server = {
  /** One session, in this process: roles are taken with each exchange instead of at login. */
  embedded: boolean
  pool(role: DatabaseRole): Pool
  close(): Promise<void>
}
