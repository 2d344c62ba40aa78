import { serverAudits } from 'graphql-http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createKey, seedOrganization } from '../harness/seed.ts'
import { createWorld, origin, type World } from '../harness/world.ts'

/** The audits of the GraphQL over HTTP specification by the makers of its reference implementation. */
describe('GraphQL over HTTP', () => {
  let world: World
  let person: string
  let key: string
  beforeAll(async () => {
    world = await createWorld()
    const org = await seedOrganization(world)
    person = org.developer.authorization
    key = (await createKey(world, org.developer, ['mcp:read'])).authorization
  })
  afterAll(() => world.close())

  /** What each audit says to a caller with this credential. */
  const audited = async (authorization: string) => {
    const fetchFn = (url: string, init: RequestInit = {}) =>
      world.app.fetch(
        new Request(url, { ...init, headers: { ...(init.headers as Record<string, string>), authorization } }),
        { remoteAddress: '192.0.2.1' },
      )
    const results: { name: string; status: string; reason: string }[] = []
    for (const audit of serverAudits({ url: `${origin}/graphql`, fetchFn })) {
      const result = await audit.fn()
      results.push({ name: result.name, status: result.status, reason: 'reason' in result ? result.reason : '' })
    }
    return results
  }

  it('is kept to the last audit where documents are taken and the schema can be asked', async () => {
    const results = await audited(person)
    expect(results.length).toBeGreaterThan(50)
    expect(results.filter(({ status }) => status !== 'ok')).toEqual([])
  })

  it('is kept with a key, but for what needs a document of one’s own', async () => {
    const results = await audited(key)
    const refused = results.filter(({ status }) => status !== 'ok')
    const reasons = [...new Set(refused.map(({ reason }) => reason))].sort()
    expect({ audits: results.length, ok: results.length - refused.length, reasons }).toEqual({
      audits: 61,
      ok: 29,
      reasons: ['Response status code is not 200', 'Response status code is not 400'],
    })
  })
})
