import { getIntrospectionQuery } from 'graphql'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import { createKey, createService, seedOrganization, type Organization } from '../harness/seed.ts'
import { asked, createWorld, type World } from '../harness/world.ts'

let world: World
let org: Organization
beforeAll(async () => {
  world = await createWorld()
  org = await seedOrganization(world)
  await createService(world, org.admin, { slug: 'one', endpoint: 'https://upstream.example/secret-path' })
})
afterAll(() => world.close())

describe('a denied field', () => {
  it('is null with what it requires, beside the fields that are permitted', async () => {
    const { data, errors, status } = await world.graphql<any>(
      '{ service(slug: "one") { slug endpoint } }',
      {},
      org.viewer,
    )
    expect(status).toBe(200)
    expect(data.service).toEqual({ slug: 'one', endpoint: null })
    expect(errors).toMatchObject([
      { path: ['service', 'endpoint'], extensions: { code: 'FORBIDDEN', requires: { scopes: ['mcp:write'] } } },
    ])
  })

  it('is not even read from the database', async () => {
    world.statements.length = 0
    await world.graphql('{ service(slug: "one") { slug endpoint } }', {}, org.viewer)
    expect(world.statements.join()).toContain('"slug"')
    expect(world.statements.join()).not.toContain('"endpoint"')
    world.statements.length = 0
    await world.graphql('{ service(slug: "one") { slug endpoint } }', {}, org.developer)
    expect(world.statements.join()).toContain('"endpoint"')
  })

  it('does not run its resolver: a denied list loads nothing', async () => {
    world.statements.length = 0
    const { code } = await world.graphql('{ auditTrail(first: 1) { edges { node { action } } } }', {}, org.viewer)
    expect(code).toBe('FORBIDDEN')
    // The one statement confirms that the credential still stands; nothing of the trail is read.
    expect(asked(world)).toEqual(['SELECT 1'])
  })

  it('says nothing about what exists: a colleague’s e-mail is null with the policy’s name', async () => {
    const { data, errors } = await world.graphql<any>(
      '{ organization { members(first: 5) { edges { node { user { id email } } } } } }', {}, org.viewer) // prettier-ignore
    const emails = data.organization.members.edges.map((edge: any) => edge.node.user.email)
    expect(emails.filter(Boolean)).toEqual([org.viewer.email])
    expect(
      errors.every(
        ({ extensions }) => extensions.code === 'FORBIDDEN' && (extensions['requires'] as any).policy === 'selfOrAdmin',
      ),
    ).toBe(true)
  })
})

describe('a denied field that is sensitive', () => {
  const denials = () =>
    world.platform.database.read(system(), (tx) => tx.auditEvent.findMany({ where: { orgId: org.id, action: 'field.denied' } })) // prettier-ignore

  it('is in the trail with the rule that decided, once for a list and however often it is asked again', async () => {
    const before = (await denials()).length
    const query = '{ organization { members(first: 5) { edges { node { user { email name } } } } } }'
    for (let i = 0; i < 3; i += 1) await world.graphql(query, {}, org.colleague)
    const [event, ...more] = (await denials()).slice(before)
    expect(more).toEqual([])
    expect(event).toMatchObject({
      target: 'User.email',
      outcome: 'denied',
      userId: org.colleague.userId,
      actorKind: 'user',
    })
    expect(event?.detail).toEqual({ code: 'FORBIDDEN', requires: '{"scopes":["org:read"],"policy":"selfOrAdmin"}' })
  })

  it('is not in the trail where it is not sensitive, or where a stranger asked', async () => {
    const before = (await denials()).length
    await world.graphql('{ service(slug: "one") { endpoint } }', {}, org.viewer)
    await world.graphql('{ viewer { email } }')
    expect(await denials()).toHaveLength(before)
  })
})

describe('introspection', () => {
  const fieldsOf = async (as?: { authorization: string }) => {
    const { data } = await world.graphql<any>(getIntrospectionQuery(), {}, as)
    const types = data.__schema.types as { name: string; fields?: { name: string }[] }[]
    return (name: string) => types.find((type) => type.name === name)?.fields?.map((field) => field.name) ?? null
  }

  it('shows a stranger the doors of signing in and nothing of the domain', async () => {
    const fields = await fieldsOf()
    expect(fields('Query')).toEqual(['apiVersion'])
    expect(fields('Mutation')).toEqual(expect.arrayContaining(['signIn', 'signUp']))
    expect(fields('Service')).toBeNull()
    expect(fields('Mutation')).not.toContain('createService')
  })

  it('shows each caller what they may use', async () => {
    const viewer = await fieldsOf(org.viewer)
    const admin = await fieldsOf(org.admin)
    expect(viewer('Mutation')).toContain('callTool')
    expect(viewer('Mutation')).not.toContain('createService')
    expect(viewer('Service')).not.toContain('endpoint')
    expect(viewer('AuditEvent')).toBeNull()
    expect(admin('Service')).toContain('endpoint')
    expect(admin('AuditEvent')).toContain('hash')
  })

  it('is not open to a key by a document of its own', async () => {
    const key = await createKey(world, org.admin, ['mcp:read'])
    const { code } = await world.graphql(getIntrospectionQuery(), {}, { authorization: key.authorization })
    expect(code).toBe('PERSISTED_QUERY_REQUIRED')
  })
})
