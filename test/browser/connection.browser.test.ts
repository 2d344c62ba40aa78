import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startAuthorizationServer, type AuthorizationServer } from '../connections/peers/authorizationServer.ts'
import { begin, oauthService, whoami } from '../connections/peers/connecting.ts'
import { startProtectedUpstream, type ProtectedUpstream } from '../connections/peers/protectedUpstream.ts'
import { addMember, password, seedOrganization, type Organization, type Person } from '../harness/seed.ts'
import { launchChromium } from './chromium.ts'
import { builtGraphiql } from './graphiqlBuild.ts'
import { servePlatform, type PlatformServer } from './platformServer.ts'

let server: PlatformServer
let org: Organization
let issuer: AuthorizationServer
let upstream: ProtectedUpstream
let browser: Browser

beforeAll(async () => {
  await builtGraphiql()
  server = await servePlatform()
  org = await seedOrganization(server.world)
  issuer = await startAuthorizationServer()
  upstream = await startProtectedUpstream('modern', issuer)
  browser = await launchChromium()
}, 180_000)
afterAll(async () => {
  await browser?.close()
  await server?.close()
  await issuer?.close()
  await upstream?.close()
})

/** Signs in on the page of GraphiQL; answers with the session that the page holds. */
async function signIn(page: Page, person: Person): Promise<Person> {
  await page.goto(`${server.origin}/graphql`)
  await page.getByLabel('E-mail').fill(person.email)
  await page.getByLabel('Password').fill(password)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.getByText(`Signed in as ${person.email}`).waitFor()
  const sent = page.waitForRequest((request) => request.headers()['authorization'] !== undefined)
  await page.getByRole('button', { name: /Execute query/ }).click()
  return { ...person, authorization: (await sent).headers()['authorization'] ?? '' }
}

/** Another tab: signs in and consents at the authorization server, and comes back. */
async function authorize(page: Page, authorizationUrl: string): Promise<void> {
  await page.goto(authorizationUrl)
  await page.locator('[name=login]').fill('ada')
  await page.locator('[name=password]').fill('any')
  await page.locator('[type=submit]').click()
  await page.locator('input[name=prompt][value=consent]').waitFor({ state: 'attached' })
  await page.locator('[type=submit]').click()
  await page.waitForURL(`${server.origin}/oauth/callback/**`)
}

describe('without a frontend, the page that a browser comes back to', () => {
  it('has the answer taken by the signed-in page that began, and leaves nothing in the address', async () => {
    const context = await browser.newContext()
    const complaints: string[] = []
    context.on('console', (message) => {
      if (/content security policy/i.test(message.text())) complaints.push(message.text())
    })
    const person = await signIn(await context.newPage(), await addMember(server.world, org.id, 'DEVELOPER'))
    const { serviceId, slug } = await oauthService(server.world, person, upstream.url)
    const tab = await context.newPage()
    await authorize(tab, await begin(server.world, person, serviceId))
    await expect.poll(() => tab.getByRole('status').textContent(), { timeout: 20_000 }).toMatch(/connected/i)
    expect(tab.url()).not.toContain('?')
    expect((await whoami(server.world, person, slug)).errors).toEqual([])
    expect(complaints.filter((text) => text.includes(server.origin))).toEqual([])
    await context.close()
  }, 60_000)

  it('is heard by nobody where a stranger is signed in, who was sent the address of somebody else', async () => {
    const context = await browser.newContext()
    const attacker = await addMember(server.world, org.id, 'DEVELOPER')
    const { serviceId, slug } = await oauthService(server.world, attacker, upstream.url)
    await signIn(await context.newPage(), await addMember(server.world, org.id, 'DEVELOPER'))
    const tab = await context.newPage()
    await authorize(tab, await begin(server.world, attacker, serviceId))
    await expect.poll(() => tab.getByRole('status').textContent(), { timeout: 20_000 }).toMatch(/No signed-in page/)
    expect((await whoami(server.world, attacker, slug)).code).toBe('SERVICE_UNCONFIGURED')
    await context.close()
  }, 60_000)
})
