import { afterAll, beforeAll, expect, it } from 'vitest'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { claimsOf, everyTable, fillEveryTable, insertion, somebody, type Somebody } from './everyTable.ts'
import { openRaw, type RawDatabase, type Row } from './rawDatabase.ts'

const refused = '42501'
const contradiction = '23514'
const admin = somebody('ORG_ADMIN')
const developer = somebody('DEVELOPER', admin.orgId)

let database: TestDatabase
let raw: RawDatabase
let service: Row

beforeAll(async () => {
  database = await createDatabase()
  raw = await openRaw(database)
  const rows = await fillEveryTable(raw, await everyTable(raw), admin)
  service = rows.get('services') ?? {}
})
afterAll(async () => {
  await raw.close()
  await database.drop()
})

const withoutMfa = ({ mfa_at: _, ...claims }: Row): Row => claims
const insertAs = (claims: Row, change: Row) =>
  raw.trial(async () => {
    await raw.query("SET LOCAL session_replication_role = 'replica'")
    await raw.become('mcp_app', claims)
    const { id: _, ...row } = service
    return raw.attempt(...insertion('services', { ...row, id: crypto.randomUUID(), slug: 'x', ...change }))
  })
const hosted = { hosted: 'memory', endpoint: 'hosted:memory' }

it('lets an administrator with a fresh second factor alone have a process run', async () => {
  const claims = (who: Somebody): Row => claimsOf(who)
  expect(await insertAs(claims(admin), hosted)).toMatchObject({ count: 1 })
  expect(await insertAs(withoutMfa(claims(admin)), hosted)).toBe(refused)
  expect(await insertAs(claims(developer), hosted)).toBe(refused)
  expect(await insertAs(claims(developer), {})).toMatchObject({ count: 1 })
})

it('lets a hosted service have no address, and no other service have the form of one', async () => {
  expect(await insertAs(claimsOf(admin), { ...hosted, endpoint: 'https://a.example' })).toBe(contradiction)
  expect(await insertAs(claimsOf(admin), { endpoint: 'hosted:memory' })).toBe(contradiction)
})

it('lets nobody make a process of a service that is none', async () => {
  await raw.trial(async () => {
    await raw.become('mcp_app', claimsOf(admin))
    expect(await raw.attempt("UPDATE services SET hosted = 'memory', endpoint = 'hosted:memory'")).toBe(refused)
    expect(await raw.attempt("UPDATE services SET endpoint = 'hosted:memory'")).toBe(contradiction)
  })
})
