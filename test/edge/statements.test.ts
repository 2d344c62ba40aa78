import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { graphql } from '../generated/gql.ts'
import { createKey, createService, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'

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

  it('are two more for an API key: its own row and its registered document', async () => {
    const { data } = await world.run(
      graphql(`
        mutation Register($input: RegisterPersistedOperationInput!) {
          registerPersistedOperation(input: $input) {
            sha256
          }
        }
      `),
      { input: { document: String(nested) } },
      org.admin,
    )
    const key = await createKey(world, org.admin, ['mcp:read', 'org:read'])
    const documentId = data.registerPersistedOperation?.sha256
    await world.post({ documentId }, { authorization: key.authorization })
    world.statements.length = 0
    const answer = await world.post({ documentId }, { authorization: key.authorization })
    expect(answer.errors).toEqual([])
    expect(world.statements).toHaveLength(3)
  })
})
