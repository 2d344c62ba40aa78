import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startAuthorizationServer, visit, type AuthorizationServer } from '../connections/peers/authorizationServer.ts'
import { publicUrl, returnedBy, whoami } from '../connections/peers/connecting.ts'
import { startProtectedUpstream, type ProtectedUpstream } from '../connections/peers/protectedUpstream.ts'
import { seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type World } from '../harness/world.ts'

const readme = await readFile(join(import.meta.dirname, '../../README.md'), 'utf8')
const section = readme.slice(readme.indexOf('## Connect accounts'))
const documents = [...section.slice(0, section.indexOf('\n## ', 1)).matchAll(/^```graphql\n([\s\S]*?)^```/gm)].map(([, body = '']) => body) // prettier-ignore

let world: World
let org: Organization
let server: AuthorizationServer
let upstream: ProtectedUpstream

beforeAll(async () => {
  world = await createWorld({ PUBLIC_URL: publicUrl, FRONTEND_URL: 'https://frontend.example' })
  org = await seedOrganization(world)
  server = await startAuthorizationServer({ fetch: (path) => world.fetch(path) })
  upstream = await startProtectedUpstream('modern', server)
})
afterAll(async () => {
  await world.close()
  await server.close()
  await upstream.close()
})

it('the README’s way to connect an account leads to one, through the frontend that it describes', async () => {
  const [add = '', connect = '', complete = ''] = documents
  const added = await world.graphql<any>(add.replace('https://notes.example/mcp', upstream.url), {}, org.developer)
  expect(added.errors).toEqual([])
  const { id: serviceId, oauthRedirectUri } = added.data.createService
  const begun = await world.graphql<any>(connect, { serviceId }, org.developer)
  expect(begun.errors).toEqual([])
  const callback = await visit(begun.data.connectService.authorizationUrl, { login: 'reader' })
  expect(callback.href.startsWith(`${oauthRedirectUri}?`)).toBe(true)

  const handed = await world.fetch(`${callback.pathname}${callback.search}&error_description=<b>&code_=x`)
  expect(handed.status).toBe(303)
  const at = new URL(handed.headers.get('location') ?? '')
  expect([at.origin, at.pathname, at.search]).toEqual(['https://frontend.example', '/connect-service', ''])
  const input = Object.fromEntries(new URLSearchParams(at.hash.slice(1)))
  expect(input).toEqual(returnedBy(callback))

  const completed = await world.graphql<any>(complete, { input }, org.developer)
  expect(completed.errors).toEqual([])
  expect(completed.data.completeServiceConnection.oauthConnection).toEqual({
    issuer: server.issuer,
    scope: 'notes:read',
  })
  expect((await whoami(world, org.developer, 'notes')).errors).toEqual([])
})
