import { createDecipheriv, hkdfSync } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { formsOf } from '../harness/encodings.ts'
import { openMailbox, tokenIn, type Mailbox } from '../harness/mailbox.ts'
import { createKey, createService, fresh, password, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld } from '../harness/world.ts'
import { openRaw, type Row } from '../rls/rawDatabase.ts'
import { MfaClient, MovableClock } from '../sessions/mfaHarness.ts'

/*
 * What was written through the public door, as whoever copies the database finds it: read by plain SQL as the owner of the
 * tables, and opened by cryptography of this file's own.
 */
const personal = 'personal-upstream-token-4711'
const shared = 'shared-upstream-token-0815'
const invited = 'invited.person.4711@example.com'

let database: TestDatabase
let mailbox: Mailbox
let org: Organization
let dump: Record<string, Row[]>
const hidden: Record<string, string> = {
  'a password': password,
  'a token of a user': personal,
  'a token of all': shared,
}
const rowsOf = (table: string): Row[] => dump[table] ?? []

beforeAll(async () => {
  database = await createDatabase()
  mailbox = await openMailbox()
  const clock = new MovableClock()
  const settings = { SMTP_URL: mailbox.url, EMAIL_VERIFICATION: 'off', BCRYPT_COST: '10' }
  const world = await createWorld(settings, { database, clock: clock.now })
  const client = new MfaClient(world, clock)
  org = await seedOrganization(world)
  const { secret: key } = await createKey(world, org.developer, ['user:read'])
  // Its secret part alone, since a row that holds that holds the key.
  hidden['an API key'] = key.slice(-49, -6)
  const serviceId = await createService(world, org.admin, { slug: 'one', endpoint: 'https://example.com/mcp', credentialMode: 'PERSONAL' }) // prettier-ignore
  await client.must('storeServiceToken', { serviceId, token: personal }, 'id', org.developer)
  await client.must('storeSharedToken', { serviceId, token: shared }, 'id', await fresh(world, org.admin))
  const { secret, recoveryCodes } = await client.enrolTotp(org.viewer)
  hidden['a TOTP secret'] = secret
  for (const [i, code] of recoveryCodes.entries()) hidden[`recovery code ${i + 1}`] = code.replaceAll('-', '')
  const { headers } = await client.signIn(org.colleague.email)
  hidden['a refresh token'] = /__Host-refresh=([^;]+)/.exec(headers.getSetCookie().join())?.[1] ?? ''
  await client.must('requestPasswordReset', { email: org.colleague.email }, 'accepted', {})
  hidden['a token in a mail'] = tokenIn(await mailbox.to(org.colleague.email))
  // The relay takes this one later, so the mail still waits when the database is copied.
  mailbox.refuse(451, 1000)
  await client.must('inviteMember', { email: invited, role: 'VIEWER' }, 'id', await fresh(world, org.admin))
  await world.close()
  const raw = await openRaw(database)
  const { rows: tables } = await raw.query(`SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'`)
  dump = {}
  for (const { name } of tables)
    dump[String(name)] = (await raw.query(`SELECT to_jsonb(t) AS row FROM "${String(name)}" t`)).rows.map(({ row }) => row as Row) // prettier-ignore
  await raw.close()
})
afterAll(async () => {
  await database.drop()
  await mailbox.close()
})

/** AES-256-GCM as RFC 5116 has it; throws where key or additional data are others. */
function gcm(key: Buffer, sealed: Buffer, context: string): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12)).setAAD(Buffer.from(context))
  decipher.setAuthTag(sealed.subarray(-16))
  return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()])
}

/** The data keys, by their categories, unwrapped by the master key of the data folder. */
async function dataKeys(): Promise<Map<string, Buffer>> {
  const master = Buffer.from((await readFile(join(database.settings['DATA_DIR'] ?? '', 'master.key'), 'utf8')).trim(), 'base64') // prettier-ignore
  const wrapping = Buffer.from(hkdfSync('sha256', master, '', 'wrap', 32))
  return new Map(
    rowsOf('data_keys').map(({ category, version, wrapped }) => {
      const bytes = Buffer.from(String(wrapped).replace(/^\\x/, ''), 'hex')
      return [String(category), gcm(wrapping, bytes, `${String(category)}:${String(version)}`)]
    }),
  )
}

describe('a copy of the database', () => {
  it('shows no secret in any encoding, in any column of any table', () => {
    expect(Object.values(hidden).filter((text) => text.length < 12)).toEqual([])
    for (const [table, rows] of Object.entries(dump)) {
      const text = JSON.stringify(rows).toLowerCase()
      for (const [name, secret] of Object.entries(hidden))
        for (const form of formsOf(secret)) expect(text.includes(form), `${table} shows ${name}`).toBe(false)
    }
  })

  it('shows neither the address nor the text of a mail that waits', () => {
    const waiting = rowsOf('mail_outbox')
    expect(waiting).toHaveLength(1)
    const text = JSON.stringify(waiting).toLowerCase()
    for (const plain of [invited, '"subject":', '"text":', 'MCP Platform'])
      for (const form of formsOf(plain)) expect(text, plain).not.toContain(form)
  })

  it('holds no two equal sealed values', () => {
    const sealed = Object.values(dump).flat().flatMap((row) => Object.values(row)).filter((value) => /^v\d+\.[\w-]{38,}$/.test(String(value))) // prettier-ignore
    expect(sealed.length).toBeGreaterThanOrEqual(5)
    expect(new Set(sealed).size).toBe(sealed.length)
  })
})

describe('with the master key', () => {
  const sealedIn = (table: string, column: string): [row: Row, sealed: Buffer] => {
    const row = rowsOf(table).find((each) => typeof each[column] === 'string')
    const [, body] = /^v1\.([\w-]+)$/.exec(String(row?.[column])) ?? []
    if (!row || !body) throw new Error(`${table}.${column} holds no sealed value`)
    return [row, Buffer.from(body, 'base64url')]
  }
  const text = (value: unknown): string => String(value)
  const bound: [table: string, column: string, category: string, to: (row: Row) => string[], shows: RegExp][] = [
    ['user_tokens', 'ciphertext', 'serviceToken', (row) => [text(row['org_id']), text(row['user_id']), text(row['service_id'])], /^personal-upstream-token-4711$/],
    ['shared_tokens', 'ciphertext', 'serviceToken', (row) => [text(row['org_id']), 'shared', text(row['service_id'])], /^shared-upstream-token-0815$/],
    ['signing_keys', 'sealed_private', 'signingKey', (row) => [text(row['kid'])], /^-----BEGIN PRIVATE KEY-----/],
    ['mail_outbox', 'sealed', 'mail', (row) => [text(row['id'])], /invited\.person\.4711@example\.com/],
    ['second_factors', 'sealed_secret', 'mfaSecret', (row) => [text(row['user_id']), text(row['id'])], /^[A-Z2-7]{16,}$/],
  ] // prettier-ignore

  it('each category has a key of its own', async () => {
    const keys = await dataKeys()
    expect([...keys.keys()].sort()).toEqual(['mail', 'mfaSecret', 'serviceToken', 'signingKey'])
    expect(new Set([...keys.values()].map((key) => key.toString('hex'))).size).toBe(keys.size)
    for (const key of keys.values()) expect(key).toHaveLength(32)
  })

  it.each(bound)('%s.%s opens by its category’s key, bound to its row, and by no other', async (table, column, category, to, shows) => {
    const keys = await dataKeys()
    const [row, sealed] = sealedIn(table, column)
    const context = to(row).join('\u0000')
    const own = keys.get(category) ?? Buffer.alloc(32)
    expect(gcm(own, sealed, context).toString()).toMatch(shows)
    for (const [other, key] of keys)
      if (other !== category) expect(() => gcm(key, sealed, context), other).toThrow()
    for (const elsewhere of ['', `${context}0`, to(row)[0] === context ? 'another' : (to(row)[0] ?? '')])
      expect(() => gcm(own, sealed, elsewhere), elsewhere).toThrow()
  }) // prettier-ignore
})
