import { createHash, randomUUID } from 'node:crypto'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { inject } from 'vitest'

/** An empty, migrated database of its own, and the settings that lead a platform (in this process or another) to it. */
export type TestDatabase = {
  settings: Record<string, string>
  embedded: boolean
  /** Where a server is: a connection as the owner of its tables. */
  ownerUrl: string | null
  drop(): Promise<void>
}

export async function createDatabase(): Promise<TestDatabase> {
  const url = inject('databaseUrl')
  const directory = await mkdtemp(join(tmpdir(), 'mcp-test-'))
  const removeDirectory = () => rm(directory, { recursive: true, force: true, maxRetries: 3 })
  if (!url) {
    await cp(inject('template'), directory, { recursive: true })
    return { settings: { DATA_DIR: directory }, embedded: true, ownerUrl: null, drop: removeDirectory }
  }
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
      const suffix = createHash('sha256').update(name).digest('hex').slice(0, 12)
      for (const role of [`mcp_app_${suffix}`, `mcp_system_${suffix}`]) await again.query(`DROP ROLE IF EXISTS ${role}`)
      await again.end()
      await removeDirectory()
    },
  }
}
