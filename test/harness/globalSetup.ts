import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { openEmbedded } from '../../src/kernel/database/embedded.ts'
import { migrate } from '../../src/kernel/database/migrate.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    /** A migrated, empty database: the folder of an embedded one, or the name of one on the server. */
    template: string
    /** The server that the suite runs on; empty for the embedded database. */
    databaseUrl: string
  }
}

/** Makes the database that every test file copies, on PGlite or, with TEST_DATABASE_URL, on PostgreSQL. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const url = process.env['TEST_DATABASE_URL'] ?? ''
  project.provide('databaseUrl', url)
  if (!url) {
    const directory = await mkdtemp(join(tmpdir(), 'mcp-template-'))
    await (await openEmbedded(directory)).close()
    project.provide('template', directory)
    return () => rm(directory, { recursive: true, force: true })
  }
  const name = `mcp_template_${process.pid}_${Date.now()}`
  const server = new pg.Client({ connectionString: url })
  await server.connect()
  await server.query(`CREATE DATABASE ${name}`)
  const address = new URL(url)
  address.pathname = `/${name}`
  const template = new pg.Client({ connectionString: address.href })
  await template.connect()
  await migrate(template)
  await template.end()
  project.provide('template', name)
  return async () => {
    await server.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
    await server.end()
  }
}
