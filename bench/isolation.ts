import { randomInt, randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { openPlatform } from '../src/compose.ts'
import { loadConfig } from '../src/config.ts'
import { anonymous, member, system, type Actor } from '../src/kernel/actor.ts'
import type { Tx } from '../src/kernel/database/door.ts'
import { createLog } from '../src/kernel/log.ts'
import { closeResources } from '../src/kernel/platform.ts'
import { scopesOf } from '../src/kernel/permissions.ts'
import { createBenchDatabase, personOf } from './database.ts'

const help = `npm run isolation -- [--requests 100000] [--clients 64] [--organizations 50]

Sends interleaved requests of random members, strangers and the platform itself over shared, pipelined connections: some fail
midway, some are cancelled, some run into a timeout. Every answer is checked for rows of anybody else, and every connection
for an identity that outlived its statement. Makes a database of its own on DATABASE_URL and drops it.
`
const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '100000' },
    clients: { type: 'string', default: '64' },
    organizations: { type: 'string', default: '50' },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  process.stdout.write(help)
  process.exit(0)
}

const requests = Number(values.requests)
const organizations = Number(values.organizations)
const serverUrl = process.env['DATABASE_URL'] ?? 'postgres://root@127.0.0.1:5432/postgres'

type Row = { org_id: string }
type Seen = { uid: string | null; org: string | null; rows: Row[] }

/** Who the database takes the caller for, and rows of every organisation that it shows them, in one statement. */
const look = async (tx: Tx): Promise<Seen> => {
  const [seen] = await tx.$queryRaw<{ uid: string | null; org: string | null; orgs: string[] | null }[]>`
    SELECT auth.uid()::text AS uid, app.org_id()::text AS org,
      (SELECT array_agg(DISTINCT org_id::text) FROM (SELECT org_id FROM services UNION ALL SELECT org_id FROM memberships) all_rows) AS orgs`
  return { uid: seen?.uid ?? null, org: seen?.org ?? null, rows: (seen?.orgs ?? []).map((org_id) => ({ org_id })) }
}

const actorOf = (organization: number): Actor => {
  const { orgId, userId, sessionId } = personOf(organization)
  const origin = { ip: null, userAgent: null, requestId: randomUUID() }
  const facts = {
    kind: 'user',
    userId,
    orgId,
    role: 'DEVELOPER',
    credentialId: sessionId,
    mfaAt: null,
    origin,
  } as const
  return member({ ...facts, given: scopesOf('DEVELOPER') }, new Date())
}

async function run(): Promise<void> {
  const database = await createBenchDatabase(serverUrl, `mcp_isolation_${randomUUID().slice(0, 8)}`, { organizations, eventsPerOrganization: 10 }) // prettier-ignore
  const directory = await mkdtemp(join(tmpdir(), 'mcp-isolation-'))
  // Few connections for many clients, so that each is shared by all; the timeout is one that some statements run into.
  const config = loadConfig({ DATABASE_URL: database.url, DATA_DIR: directory, DATABASE_POOL_SIZE: '8', REQUEST_TIMEOUT_SECONDS: '2', LOG_LEVEL: 'fatal' }) // prettier-ignore
  const platform = await openPlatform(config, createLog(config))
  const counts = { requests: 0, leaks: 0, failed: 0, cancelled: 0, timedOut: 0, strangers: 0, ofThePlatform: 0 }
  const judge = (actor: Actor, { uid, org, rows }: Seen): void => {
    const own = 'orgId' in actor ? actor : null
    const right =
      uid === (own?.userId ?? null) && org === (own?.orgId ?? null) &&
      (actor.kind === 'system' || (own ? rows.length === 1 && rows[0]?.org_id === own.orgId : rows.length === 0)) // prettier-ignore
    if (!right) counts.leaks += 1
  }
  const pick = (): Actor => {
    const dice = randomInt(20)
    if (dice === 0) return ((counts.strangers += 1), anonymous())
    if (dice === 1) return ((counts.ofThePlatform += 1), system())
    return actorOf(1 + randomInt(organizations))
  }
  const midway = new Error('midway')
  const ways: ((actor: Actor) => Promise<void>)[] = [
    async (actor) => judge(actor, await platform.database.read(actor, look)),
    async (actor) => judge(actor, await platform.database.read(actor, look)),
    async (actor) => judge(actor, await platform.database.transact(actor, look)),
    async (actor) => {
      counts.failed += 1
      const reader = platform.database.openReader(actor)
      judge(actor, await look(reader.tx))
      await reader.tx.$queryRaw`SELECT 1 / 0`.catch(() => {})
      judge(actor, await look(reader.tx))
      await reader.close()
    },
    async (actor) => {
      counts.failed += 1
      await platform.database.transact(actor, async (tx) => {
        judge(actor, await look(tx))
        throw midway
      }).catch((error: unknown) => { if (error !== midway) throw error }) // prettier-ignore
    },
    async (actor) => {
      // Closed while its statements are under way, as a request is whose caller hangs up.
      counts.cancelled += 1
      const reader = platform.database.openReader(actor)
      const under = Promise.allSettled([look(reader.tx), look(reader.tx)])
      await reader.close()
      for (const each of await under) if (each.status === 'fulfilled') judge(actor, each.value)
    },
  ]
  const timeOut = async (actor: Actor): Promise<void> => {
    counts.timedOut += 1
    await platform.database.read(actor, (tx) => tx.$queryRaw`SELECT pg_sleep(60)::text`).then(() => { throw new Error('it did not time out') }, () => {}) // prettier-ignore
  }
  /** On a busy machine others run into the timeout, too; whatever else goes wrong ends the run. */
  const orTimedOut = (error: unknown): void => {
    const code = error instanceof Error && 'code' in error ? error.code : null
    if (code !== 'P2028' && code !== 'SERVICE_UNAVAILABLE' && !/57014|timeout|terminated/.test(String(error)))
      throw error
    counts.timedOut += 1
  }
  const client = async (n: number): Promise<void> => {
    while (counts.requests < requests) {
      counts.requests += 1
      // A timeout holds a connection for two seconds, so one client alone brings them.
      if (n === 0 && counts.requests % 50 < 25) await timeOut(pick())
      else await (ways[randomInt(ways.length)] as (typeof ways)[number])(pick()).catch(orTimedOut)
      if (counts.requests % Math.ceil(requests / 10) === 0) process.stderr.write(`${counts.requests} requests, ${counts.leaks} leaks\n`) // prettier-ignore
    }
  }
  try {
    await Promise.all(Array.from({ length: Number(values.clients) }, (_, n) => client(n)))
  } finally {
    await closeResources(platform)
    await platform.outbound.close()
    await platform.database.close()
    await database.drop()
    await rm(directory, { recursive: true, force: true })
  }
  process.stdout.write(`${JSON.stringify(counts)}\n`)
  if (counts.leaks) process.exitCode = 1
}

await run()
