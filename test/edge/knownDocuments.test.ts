import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'

/** A document is parsed and validated once; whoever sends it again must not be able to tell, but by the time it takes. */
describe('a document that is known', () => {
  let world: World
  let org: Organization
  beforeAll(async () => {
    world = await createWorld()
    org = await seedOrganization(world)
  })
  afterAll(() => world.close())

  type Sent = { query: string; variables?: Record<string, unknown>; operationName?: string }
  const ask = async (sent: Sent, headers: Record<string, string>, method = 'POST') => {
    const search = new URLSearchParams({ query: sent.query, ...(sent.variables ? { variables: JSON.stringify(sent.variables) } : {}) }) // prettier-ignore
    const response = await world.fetch(method === 'GET' ? `/graphql?${search}` : '/graphql', {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      ...(method === 'GET' ? {} : { body: JSON.stringify(sent) }),
    })
    const text = await response.text()
    const same = text.replaceAll(/"requestId":"[^"]+"|"remaining":\d+|"id":"[^"]+"|"createdAt":"[^"]+"/g, '')
    const shown = ['content-type', 'www-authenticate', 'cache-control', 'allow'].map((name) => response.headers.get(name)) // prettier-ignore
    return [response.status, shown, same] as const
  }

  const paged = 'query Paged($first: Int) { services(first: $first) { edges { node { slug } } } }'
  const cases: [string, Sent, ('viewer' | 'admin' | 'nobody')?, string?][] = [
    ['an answer', { query: '{ viewer { role organization { slug } } }' }],
    ['an answer by GET', { query: '{ viewer { role } }' }, 'viewer', 'GET'],
    ['a mutation by GET', { query: 'mutation { signOut { sessionId } }' }, 'nobody', 'GET'],
    ['a refused field beside an allowed one', { query: '{ viewer { role } apiKeys { edges { node { id } } } }' }],
    ['a request that is refused as a whole', { query: '{ auditTrail { edges { node { id } } } }' }],
    ['no credential', { query: '{ viewer { role } }' }, 'nobody'],
    ['a page within bounds', { query: paged, variables: { first: 3 } }],
    ['a page out of bounds', { query: paged, variables: { first: 5000 } }],
    ['a variable of the wrong type', { query: paged, variables: { first: 'many' } }],
    ['an unknown operation name', { query: paged, operationName: 'Other' }],
    ['introspection of what the caller may use', { query: '{ __schema { queryType { fields { name } } } }' }],
    ['a document that does not validate', { query: '{ viewer { nothing } }' }],
    ['a document that does not parse', { query: '{ viewer {' }],
  ]
  it.each(cases)('is answered as the first time: %s', async (_name, sent, who = 'viewer', method = 'POST') => {
    const as = who === 'nobody' ? {} : { authorization: org[who].authorization }
    for (const accept of ['*/*', 'application/json', 'application/graphql-response+json']) {
      const first = await ask({ ...sent, query: `${sent.query}\n# ${accept} ${who}` }, { accept, ...as }, method)
      const again = await ask({ ...sent, query: `${sent.query}\n# ${accept} ${who}` }, { accept, ...as }, method)
      expect(again).toEqual(first)
    }
  })

  it('is judged anew for every caller', async () => {
    const query = '{ auditTrail(first: 1) { edges { node { id } } } }'
    const statuses = []
    for (const person of [org.admin, org.viewer, org.admin, org.developer])
      statuses.push((await world.graphql(query, {}, person)).status)
    expect(statuses).toEqual([200, 403, 200, 403])
    expect((await world.graphql(query)).status).toBe(401)
  })

  it('costs what its variables come to, each time', async () => {
    const cost = async (first: number) => (await world.graphql(paged, { first }, org.viewer)).extensions.cost.requested
    const costs = [await cost(1), await cost(50), await cost(1), await cost(50)]
    expect(costs[1]).toBeGreaterThan(costs[0] ?? 0)
    expect(costs.slice(2)).toEqual(costs.slice(0, 2))
  })
})
