import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createDatabase, type TestDatabase } from '../harness/database.ts'
import { start, type Running } from '../harness/process.ts'
import { password } from '../harness/seed.ts'

type Body = { data?: Record<string, any>; errors?: unknown[] }

describe('a process that is killed the moment a mutation has answered', () => {
  let database: TestDatabase
  let server: Running
  let token = ''
  const open = async (): Promise<Running> => start({ ...database.settings, DEMO: 'off', LOG_LEVEL: 'error' })
  const send = async (query: string, variables: Record<string, unknown> = {}): Promise<Record<string, any>> => {
    const response = await fetch(`${server.address}/graphql`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...(token ? { Authorization: `Bearer ${token}` } : {}) },
      body: JSON.stringify({ query, variables }),
    })
    const { data, errors = [] } = (await response.json()) as Body
    expect(errors).toEqual([])
    return data ?? {}
  }
  const killAndStart = async (): Promise<void> => {
    server.signal('SIGKILL')
    expect(await server.exited).toBe(null)
    server = await open()
  }

  beforeAll(async () => {
    database = await createDatabase()
    server = await open()
  })
  afterAll(async () => {
    await server.stop()
    await database.drop()
  })

  it('has kept the account, the session, the row and its audit event', async () => {
    const { signUp } = await send('mutation ($input: SignUpInput!) { signUp(input: $input) { accessToken } }', {
      input: { email: 'owner@example.com', password, name: 'Owner', organizationName: 'Durable' },
    })
    token = signUp.accessToken
    await send('mutation ($input: CreateServiceInput!) { createService(input: $input) { id } }', {
      input: { slug: 'kept', name: 'Kept', endpoint: 'https://upstream.example/mcp', credentialMode: 'NONE' },
    })
    await killAndStart()
    const { services, auditTrail } = await send(
      '{ services(first: 5) { edges { node { slug } } } auditTrail(first: 10) { edges { node { action } } } }',
    )
    expect(services.edges).toEqual([{ node: { slug: 'kept' } }])
    const actions = auditTrail.edges.map(({ node }: { node: { action: string } }) => node.action)
    expect(actions.filter((action: string) => action === 'service.created')).toHaveLength(1)
  })
})
