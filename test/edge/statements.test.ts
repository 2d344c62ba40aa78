import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { graphql } from '../generated/gql.ts'
import { createKey, createService, seedOrganization, type Organization } from '../harness/seed.ts'
import { asked, createWorld, type World } from '../harness/world.ts'
import { costs } from './statements/costs.ts'
import { rootFields, type Kind } from './statements/documents.ts'
import { questions } from './statements/questions.ts'
import { measure, setStage, type Stage } from './statements/stage.ts'
import { startEcho } from '../durability/echo.ts'

const nested = graphql(`
  query Nested {
    viewer {
      id
      organization {
        name
        services(first: 20) {
          edges {
            node {
              id
              slug
              name
            }
          }
        }
        members(first: 10) {
          edges {
            node {
              role
              user {
                id
                name
              }
            }
          }
        }
      }
    }
  }
`)

const servicesWithTokens = graphql(`
  query ServicesWithTokens {
    services(first: 50) {
      edges {
        node {
          slug
          token {
            hint
          }
        }
      }
    }
  }
`)

const registerNested = graphql(`
  mutation Register($input: RegisterPersistedOperationInput!) {
    registerPersistedOperation(input: $input) {
      sha256
    }
  }
`)

describe('statements per request', () => {
  let world: World
  let org: Organization
  beforeAll(async () => {
    world = await createWorld()
    org = await seedOrganization(world)
  })
  afterAll(() => world.close())

  const measure = async () => {
    const answers = [
      await world.run(nested, {}, org.admin),
      await world.run(servicesWithTokens, {}, org.developer),
    ] as const
    for (const { errors } of answers) expect(errors).toEqual([])
    return answers.map(({ extensions }) => extensions.statements)
  }

  it('stay the same whatever the sizes: one for an organisation with its services, members and their users, two for tokens', async () => {
    await createService(world, org.admin, { slug: 'first', endpoint: 'https://upstream.example/mcp' })
    const before = await measure()
    for (let i = 0; i < 25; i += 1)
      await createService(world, org.admin, { slug: `s-${i}`, endpoint: 'https://upstream.example/mcp' })
    const after = await measure()
    const { data } = await world.run(nested, {}, org.admin)
    expect(data.viewer?.organization?.services?.edges).toHaveLength(20)
    expect(data.viewer?.organization?.members?.edges?.length).toBeGreaterThanOrEqual(4)
    expect([before, after]).toEqual([
      [1, 2],
      [1, 2],
    ])
  })

  describe('of a registered query', () => {
    let documentId: string
    let key: { id: string; authorization: string }
    beforeAll(async () => {
      const { data } = await world.run(registerNested, { input: { document: String(nested) } }, org.admin)
      documentId = data.registerPersistedOperation?.sha256 ?? ''
      key = await createKey(world, org.admin, ['mcp:read', 'org:read'])
    })
    const count = async (as: { authorization: string }): Promise<number> => {
      world.statements.length = 0
      const { errors } = await world.post({ documentId }, as)
      expect(errors).toEqual([])
      return asked(world).length
    }

    it('are two more the first time a key is seen, its row and the document, and no more than the query’s own from then on', async () => {
      expect([await count(key), await count(key), await count(key)]).toEqual([3, 1, 1])
    })

    it('are the query’s own for a person, too', async () => {
      await count(org.admin)
      expect(await count(org.admin)).toBe(1)
    })
  })

  it('of an MCP call by a key that is known are the way to its service and its record', async () => {
    const echo = await startEcho()
    await createService(world, org.admin, { slug: 'echo', endpoint: echo.url })
    const { authorization } = await createKey(world, org.admin, ['mcp:read', 'mcp:write'])
    const headers = {
      authorization,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': '2025-11-25',
    }
    const call = async (n: number): Promise<number> => {
      world.statements.length = 0
      const params = { name: 'echo', arguments: { n } }
      const body = JSON.stringify({ jsonrpc: '2.0', id: n, method: 'tools/call', params })
      const answer = await world.fetch(`/mcp/${org.slug}/echo`, { method: 'POST', headers, body })
      expect(await answer.text()).toContain('"result"')
      return asked(world).length
    }
    for (let n = 1; n <= 3; n += 1) await call(n)
    expect([await call(4), await call(5)]).toEqual([2, 2])
    await echo.close()
  })
})

const kinds: Kind[] = ['query', 'mutation', 'subscription']
const fieldOf = (name: string): string => name.split(' · ', 1)[0] ?? ''

describe('what every operation costs', () => {
  it('is written down for each root field of the schema, and asked of each', () => {
    for (const kind of kinds) {
      expect(Object.keys(questions[kind])).toEqual(Object.keys(costs[kind]))
      expect(new Set(Object.keys(costs[kind]).map(fieldOf))).toEqual(new Set(rootFields(kind)))
    }
  })

  // Each of five people has so many rows of their own in every table that the schema shows, and manifests are as long; pages are of eight.
  describe.each([['a small organisation', 1], ['one ten times its size', 10]])('holds in %s', (_size, copies) => {
    let stage: Stage
    beforeAll(async () => void (stage = await setStage(copies)))
    afterAll(() => stage.close())

    it.each(kinds)('for each %s', async (kind) => {
      const measured: Record<string, number[]> = {}
      for (const [name, question] of Object.entries(questions[kind]))
        measured[name] = await measure(stage, kind, fieldOf(name), await question(stage))
      const { embedded } = stage.world.database
      const expected = Object.entries(costs[kind]).map(([name, [statements, roundTrips, counts = 0]]) => [name, [statements, roundTrips, embedded ? 0 : counts]]) // prettier-ignore
      expect(measured).toEqual(Object.fromEntries(expected))
    })
  })
}) // prettier-ignore
