import { fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { afterEach, describe, expect, inject, it } from 'vitest'
import { openEmbedded } from '../../../src/kernel/database/embedded.ts'
import { migrate } from '../../../src/kernel/database/migrate.ts'
import { createDatabase } from '../../harness/database.ts'

const url = inject('databaseUrl')
const cleanups: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

/** Clients of one new database: several connections of a server, or the one session of an embedded database. */
async function clients(count: number): Promise<pg.ClientBase[]> {
  if (!url) {
    const { settings, drop } = await createDatabase()
    const server = await openEmbedded(settings['DATA_DIR'] ?? '')
    const client = await server.pool('mcp_system').connect()
    cleanups.push(drop, () => server.close(), () => Promise.resolve(client.release())) // prettier-ignore
    return [client]
  }
  const name = `mcp_migrate_${randomUUID().replaceAll('-', '')}`
  const server = new pg.Client({ connectionString: url })
  await server.connect()
  await server.query(`CREATE DATABASE ${name}`)
  cleanups.push(() => server.end(), () => server.query(`DROP DATABASE ${name} WITH (FORCE)`)) // prettier-ignore
  const address = new URL(url)
  address.pathname = `/${name}`
  const all = Array.from({ length: count }, () => new pg.Client({ connectionString: address.href }))
  for (const client of all) {
    await client.connect()
    cleanups.push(() => client.end())
  }
  return all
}

describe('the migrations', () => {
  const onAServer = async () => {
    const applied = await Promise.all((await clients(3)).map(migrate))
    expect(applied.filter((names) => names.length > 0)).toHaveLength(1)
    expect(applied.flat()).toEqual(expect.arrayContaining(['0001_foundation', '0002_first_slice']))
  }
  /** Its folder is one process's, so the other start is refused before it can read anything. */
  const embedded = async () => {
    const directory = await mkdtemp(join(tmpdir(), 'mcp-migrate-'))
    cleanups.push(() => rm(directory, { recursive: true, force: true }))
    const opener = fileURLToPath(new URL('./opener.mjs', import.meta.url))
    const children = [0, 1].map(() => fork(opener, [directory], { execArgv: [] }))
    const said = await Promise.all(children.map(async (child) => String((await once(child, 'message'))[0])))
    const ended = children.map((child) => once(child, 'exit'))
    for (const child of children) child.send('close')
    await Promise.all(ended)
    expect(said.sort()).toEqual([expect.stringMatching(/^Another process \(\d+\) uses /), 'open'])
  }
  it('are applied once by starts at the same moment', url ? onAServer : embedded)

  it('are refused where one was changed after it was applied, was left unfinished, or fails', async () => {
    const [client] = await clients(1)
    if (!client) return expect.fail('no client')
    await migrate(client)
    expect(await migrate(client)).toEqual([])
    const ledger = (change: string) => client.query(`UPDATE _prisma_migrations SET ${change} WHERE migration_name = '0002_first_slice'`) // prettier-ignore
    await ledger('checksum = reverse(checksum)')
    await expect(migrate(client)).rejects.toThrow('0002_first_slice was changed after it was applied')
    await ledger('checksum = reverse(checksum), finished_at = NULL')
    await expect(migrate(client)).rejects.toThrow('0002_first_slice was begun elsewhere and never finished')
    await ledger('rolled_back_at = now()')
    await expect(migrate(client)).rejects.toThrow('0002_first_slice failed and was rolled back')
    await ledger('rolled_back_at = NULL, finished_at = now()')
    expect(await migrate(client)).toEqual([])
  })
})
