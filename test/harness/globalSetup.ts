import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { openPlatform } from '../../src/compose.ts'
import { loadConfig } from '../../src/config.ts'
import { createLog } from '../../src/kernel/log.ts'
import { closeResources } from '../../src/kernel/platform.ts'
import { keyring } from '../../src/modules/sessions/keyring.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    /** The data folder of a platform that was started once: its master key and, where it is embedded, its database. */
    dataDirectory: string
    /** The name of that platform's database on the server; empty where it is embedded. */
    template: string
    /** The server that the suite runs on; empty for the embedded database. */
    databaseUrl: string
  }
}

/** The logins that a platform makes for itself on a server, of which a test's are to go with its database. */
export const loginsOf = (database: string): string[] => {
  const suffix = createHash('sha256').update(database).digest('hex').slice(0, 12)
  return [`mcp_app_${suffix}`, `mcp_system_${suffix}`]
}

/** Migrates, and makes the keys that every platform makes at its first start, so that each test need not. */
async function startOnce(settings: Record<string, string>): Promise<void> {
  const config = loadConfig({ ...settings, LOG_LEVEL: 'error' })
  const platform = await openPlatform(config, createLog(config))
  await keyring(platform).load()
  await closeResources(platform)
  await platform.outbound.close()
  await platform.database.close()
}

/** Makes what every test file copies, on PGlite or, with TEST_DATABASE_URL, on PostgreSQL. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const url = process.env['TEST_DATABASE_URL'] ?? ''
  const directory = await mkdtemp(join(tmpdir(), 'mcp-template-'))
  const removeDirectory = () => rm(directory, { recursive: true, force: true })
  project.provide('databaseUrl', url)
  project.provide('dataDirectory', directory)
  if (!url) {
    project.provide('template', '')
    await startOnce({ DATA_DIR: directory })
    return removeDirectory
  }
  const name = `mcp_template_${process.pid}_${Date.now()}`
  project.provide('template', name)
  const server = new pg.Client({ connectionString: url })
  await server.connect()
  await server.query(`CREATE DATABASE ${name}`)
  const address = new URL(url)
  address.pathname = `/${name}`
  await startOnce({ DATA_DIR: directory, DATABASE_URL: address.href })
  return async () => {
    await server.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
    for (const login of loginsOf(name)) await server.query(`DROP ROLE IF EXISTS ${login}`)
    await server.end()
    await removeDirectory()
  }
}
