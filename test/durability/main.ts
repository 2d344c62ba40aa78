/**
 * SIGKILL under load, 20 times, then SIGTERM under load: on the embedded database and, with TEST_DATABASE_URL, on PostgreSQL.
 * `npm run crash`; `npm run crash -- 5` for fewer.
 */
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { crash, type Outcome } from './crash.ts'

const times = Number(process.argv[2] ?? 20)
const say = (line: string): void => void process.stdout.write(`${line}\n`)

function report(where: string, signal: string, { missing, twice, gone, ...counts }: Outcome): boolean {
  const right = missing.length + twice.length + gone.length === 0 && counts.counted === counts.rows
  const uncut = signal === 'SIGKILL' || counts.cut === 0
  say(
    `${where}, ${signal} × ${counts.ends}: ${counts.answered} calls answered, ${missing.length} without a row, ${twice.length} with two, ` +
      `${counts.rows} rows, ${counts.counted} counted; ${counts.written} writes acknowledged, ${gone.length} gone` +
      (signal === 'SIGTERM' ? `; ${counts.cut} requests cut` : ''),
  )
  return right && uncut
}

async function both(where: string, data: () => Promise<{ settings: Record<string, string>; drop: () => Promise<void> }>) {
  let right = true
  for (const [signal, count] of [['SIGKILL', times], ['SIGTERM', Math.min(times, 5)]] as const) {
    const { settings, drop } = await data()
    right = report(where, signal, await crash({ data: settings, signals: Array<typeof signal>(count).fill(signal), onEnd: say })) && right
    await drop()
  }
  return right
} // prettier-ignore

const folder = async () => {
  const directory = await mkdtemp(join(tmpdir(), 'mcp-crash-'))
  const drop = () => rm(directory, { recursive: true, force: true, maxRetries: 3 })
  return { settings: { DATA_DIR: directory } as Record<string, string>, drop }
}

const results = [await both('embedded database', folder)]
const server = process.env['TEST_DATABASE_URL']
if (server)
  results.push(
    await both('PostgreSQL', async () => {
      const { settings, drop } = await folder()
      const name = `mcp_crash_${randomUUID().replaceAll('-', '')}`
      const client = new pg.Client({ connectionString: server })
      await client.connect()
      await client.query(`CREATE DATABASE ${name}`)
      const url = new URL(server)
      url.pathname = `/${name}`
      return {
        settings: { ...settings, DATABASE_URL: url.href },
        drop: async () => {
          await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
          await client.end()
          await drop()
        },
      }
    }),
  )
else say('PostgreSQL was left out: TEST_DATABASE_URL names none.')
process.exitCode = results.every(Boolean) ? 0 : 1
