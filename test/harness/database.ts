import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { inject } from 'vitest'
import { loginsOf } from './globalSetup.ts'

/** An empty, migrated database of its own, and the settings that lead a platform (in this process or another) to it. */
export type TestDatabase = {
  settings: Record<string, string>
  embedded: boolean
  /** Where a server is: a connection as the owner of its tables. */
  ownerUrl: string | null
  drop(): Promise<void>
}

/** Where the system has a copy of its own: it takes a tenth of Node's time for the thousand files of an embedded database. */
const copyInto = (from: string, to: string): Promise<unknown> =>
  process.platform === 'win32' ? cp(from, to, { recursive: true }) : promisify(execFile)('cp', ['-R', `${from}/.`, to])

export async function createDatabase(): Promise<TestDatabase> {
  const url = inject('databaseUrl')
  const directory = await mkdtemp(join(tmpdir(), 'mcp-test-'))
  const removeDirectory = () => rm(directory, { recursive: true, force: true, maxRetries: 3 })
  await copyInto(inject('dataDirectory'), directory)
  if (!url) return { settings: { DATA_DIR: directory }, embedded: true, ownerUrl: null, drop: removeDirectory }
  const name = `mcp_test_${randomUUID().replaceAll('-', '')}`
  const server = new pg.Client({ connectionString: url })
  await server.connect()
  await server.query(`CREATE DATABASE ${name} TEMPLATE ${inject('template')}`)
  await server.end()
  const address = new URL(url)
  address.pathname = `/${name}`
  return {
    settings: { DATA_DIR: directory, DATABASE_URL: address.href },
    embedded: false,
    ownerUrl: address.href,
    async drop() {
      const again = new pg.Client({ connectionString: url })
      await again.connect()
      await again.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
      // Its own logins alone: a role holds for the whole server, and other files are at work on it.
      for (const login of loginsOf(name)) await again.query(`DROP ROLE IF EXISTS ${login}`)
      await again.end()
      await removeDirectory()
    },
  }
}
