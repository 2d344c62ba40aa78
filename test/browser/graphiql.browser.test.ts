import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { launchChromium } from './chromium.ts'
import { builtGraphiql } from './graphiqlBuild.ts'
import { accessToken, password, startServer, type TestServer } from './graphiqlServer.ts'

let directory: string
let server: TestServer
let browser: Browser
let page: Page
let complaints: string[]

/** Everything that a browser says against the page: violations, console errors, uncaught exceptions, failed or foreign requests. */
async function openPage(origin: string): Promise<{ page: Page; complaints: string[] }> {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 },
    permissions: ['clipboard-read', 'clipboard-write'],
  })
  const opened = await context.newPage()
  const heard: string[] = []
  await opened.exposeFunction('reportViolation', (violation: string) => heard.push(`violation: ${violation}`))
  await opened.addInitScript(`addEventListener('securitypolicyviolation', (event) =>
    reportViolation(event.effectiveDirective + ' ' + event.blockedURI))`)
  opened.on('console', (message) => {
    const text = message.text()
    // An error that GraphQL answers with its own HTTP status is none of the page's.
    if (message.location().url === `${origin}/graphql`) return
    if (message.type() === 'error' || /content security policy|web worker/i.test(text)) heard.push(`console: ${text}`)
  })
  opened.on('pageerror', (error) => heard.push(`uncaught: ${error.message}`))
  opened.on('request', (request) => {
    if (!request.url().startsWith(origin)) heard.push(`foreign request: ${request.url()}`)
  })
  await opened.goto(`${origin}/graphql`)
  await opened.locator('.graphiql-query-editor .monaco-editor .view-line').first().waitFor()
  return { page: opened, complaints: heard }
}

async function signIn(email: string, withPassword = password): Promise<void> {
  await page.getByLabel('E-mail').fill(email)
  await page.getByLabel('Password').fill(withPassword)
  await page.getByRole('button', { name: 'Sign in' }).click()
}

async function write(section: string, text: string): Promise<void> {
  await page.locator(`section[aria-label="${section}"] .monaco-editor:visible`).click()
  await page.keyboard.press('Control+a')
  // Pasted, as Monaco closes the brackets that are typed.
  await page.evaluate(`navigator.clipboard.writeText(${JSON.stringify(text)})`)
  await page.keyboard.press('Control+v')
}

const run = () => page.keyboard.press('Control+Enter')
/** Monaco draws spaces as no-break spaces. */
const resultText = async () =>
  (await page.locator('section[aria-label="Result Window"]').textContent())?.replaceAll('\u00a0', ' ')
const eventually = (look: () => unknown) => expect.poll(look, { timeout: 10_000 })
const alert = () => page.getByRole('alert').filter({ hasText: /\S/ }).first()
const stored = () =>
  page.evaluate<string>(`JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])`)

beforeAll(async () => {
  directory = await builtGraphiql()
  server = await startServer(directory)
  browser = await launchChromium()
}, 60_000)

afterAll(async () => {
  await browser?.close()
  await server?.close()
})

describe('the build', () => {
  it('has hashed names, no source map, no inline script and no address of anybody else', () => {
    const html = readFileSync(join(directory, 'index.html'), 'utf8')
    expect(html).not.toMatch(/<script(?![^>]*\ssrc=)|<style|\son\w+=|https?:/)
    expect([...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path]) => path)).toSatisfy((paths: string[]) =>
      paths.every((path) => /^\/graphiql\/assets\/[\w.-]+-[\w-]{8}\.\w+$/.test(path)),
    )
    const assets = readdirSync(join(directory, 'assets'))
    expect(assets.filter((name) => name.endsWith('.map'))).toEqual([])
    expect(assets.filter((name) => /\.worker-[\w-]{8}\.js$/.test(name))).toHaveLength(3)
    for (const sheet of assets.filter((name) => name.endsWith('.css'))) {
      expect(readFileSync(join(directory, 'assets', sheet), 'utf8')).not.toContain('url(data:')
    }
  })
})

describe('GraphiQL under the general policy alone', () => {
  it('is refused its inline styles, and nothing else: the relaxation is needed, and these tests notice a violation', async () => {
    const strict = await startServer(directory, { relaxed: false })
    const opened = await openPage(strict.origin)
    const violations = opened.complaints.filter((complaint) => complaint.startsWith('violation'))
    expect(new Set(violations.map((violation) => violation.replace('violation: ', '').split(' ')[0]))).toEqual(
      new Set(['style-src-attr', 'style-src-elem']),
    )
    await opened.page.context().close()
    await strict.close()
  }, 30_000)
})

describe('GraphiQL at /graphql', () => {
  beforeEach(async () => {
    ;({ page, complaints } = await openPage(server.origin))
  }, 30_000)

  afterEach(async () => {
    await page.context().close()
    expect(complaints).toEqual([])
  })

  it('shows an alert for a wrong password, and goes back to the password', async () => {
    await signIn('ada@example.com', 'wrong')
    await eventually(() => alert().textContent()).toBe('The e-mail address or the password is wrong.')
    expect(await page.getByRole('status').count()).toBe(0)
    expect(await page.evaluate(`document.activeElement.name`)).toBe('password')
    expect(page.url()).toBe(`${server.origin}/graphql`)
  })

  it('shows what the server says when a second factor is due', async () => {
    await signIn('mfa@example.com')
    await eventually(() => alert().textContent()).toBe('Enter the code of your authenticator app.')
  })

  it('shows an alert when the server cannot be reached, or answers no GraphQL', async () => {
    await page.route('**/graphql', (route) =>
      route.fulfill({ status: 200, contentType: 'text/html', body: '<h1>Bad gateway</h1>' }),
    )
    await signIn('ada@example.com')
    await eventually(() => alert().textContent()).toMatch(/could not be reached/)
  })

  it('answers an error, and no data, to who has not signed in', async () => {
    await page.getByRole('button', { name: /Execute query/ }).click()
    await eventually(() => resultText()).toContain('Sign in first.')
  })

  it('runs what is typed', async () => {
    await page.locator('.graphiql-query-editor .monaco-editor').click()
    await page.keyboard.press('Control+a')
    // The editor writes the closing brace.
    await page.keyboard.type('query Hello { echo(text: "hello from the editor")')
    await page.getByRole('tab', { name: 'Hello' }).waitFor()
    await run()
    await eventually(() => resultText()).toContain('"echo": "hello from the editor"')
  })

  it('underlines a field that the schema does not have, with its workers, and without a data: image', async () => {
    await write('Operation Editor', '{ nonsense }')
    const squiggle = page.locator('.squiggly-error').first()
    await squiggle.waitFor()
    const look = await squiggle.evaluate((element) => {
      const style = element.ownerDocument.defaultView?.getComputedStyle(element)
      return `${style?.backgroundImage} ${style?.maskImage}`
    })
    expect(look).toMatch(/^none url\(".*\/graphiql\/assets\/squiggle-/)
    const workers = page.workers().map((worker) => worker.url().replace(/-[\w-]{8}\.js$/, ''))
    expect(new Set(workers)).toEqual(
      new Set(['editor', 'graphql', 'json'].map((name) => `${server.origin}/graphiql/assets/${name}.worker`)),
    )
  })

  it('signs in by keyboard, reads the schema again and runs the first query as that person', async () => {
    const before = server.introspections.length
    await page.getByLabel('E-mail').focus()
    await page.keyboard.type('ada@example.com')
    await page.keyboard.press('Tab')
    await page.keyboard.type(password)
    await page.keyboard.press('Enter')
    await eventually(() => page.getByRole('status').textContent()).toMatch(/^Signed in as ada@example.com until \d/)
    await eventually(() => server.introspections.slice(before)).toEqual([`Bearer ${accessToken}`])
    await page.getByRole('button', { name: /Execute query/ }).click()
    await eventually(() => resultText()).toContain('"name": "Analytical Engines"')
  })

  it('stores neither token nor password, nor what was written, in the browser', async () => {
    await signIn('ada@example.com')
    await page.getByRole('status').waitFor()
    await page.getByRole('button', { name: 'Variables' }).click()
    await write('Variables', '{ "text": "an-upstream-token" }')
    await page.getByRole('button', { name: 'Headers' }).click()
    await write('Headers', '{ "x-note": "a-header-secret" }')
    await write('Operation Editor', 'query Echo($text: String!) { echo(text: $text) }')
    await page.getByRole('tab', { name: 'Echo' }).waitFor()
    await run()
    await eventually(() => resultText()).toContain('"echo": "an-upstream-token"')
    const [local, session, cookie] = JSON.parse(await stored())
    expect(Object.keys(local).filter((key) => !/^graphiql:(theme|visiblePlugin|\w+Flex)$/.test(key))).toEqual([])
    expect(session).toEqual({})
    expect(cookie).toBe('')
    expect(await page.context().cookies()).toEqual([])
    expect(await stored()).not.toMatch(/eyJ|secret|token|battery/)
  })

  it('prefers a credential that is typed into the headers', async () => {
    await signIn('ada@example.com')
    await page.getByRole('status').waitFor()
    await page.getByRole('button', { name: 'Headers' }).click()
    await write('Headers', '{ "Authorization": "Bearer another" }')
    await page.getByRole('button', { name: /Execute query/ }).click()
    await eventually(() => resultText()).toContain('Sign in first.')
  })

  it('forgets token, operations and answers on signing out', async () => {
    await signIn('ada@example.com')
    await page.getByRole('status').waitFor()
    await page.getByRole('button', { name: /Execute query/ }).click()
    await eventually(() => resultText()).toContain('Ada Lovelace')
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByLabel('E-mail').waitFor()
    await page.locator('.graphiql-query-editor .monaco-editor .view-line').first().waitFor()
    expect(await page.locator('body').textContent()).not.toContain('Ada Lovelace')
    await page.getByRole('button', { name: /Execute query/ }).click()
    await eventually(() => resultText()).toContain('Sign in first.')
  })

  it('says when the session has ended, and keeps what was written', async () => {
    await write('Operation Editor', '{ echo(text: "a draft") }')
    await signIn('brief@example.com')
    await eventually(() => alert().textContent()).toMatch(/^Your session has ended/)
    await page.getByLabel('E-mail').waitFor()
    expect(await page.locator('.graphiql-query-editor').textContent()).toMatch(/a.draft/)
  })

  it('opens documentation, history, settings, completion and prettifying without a violation', async () => {
    await page.getByRole('button', { name: 'Show Documentation Explorer' }).click()
    await page.getByRole('link', { name: 'Query' }).click()
    await page.getByText('The person who is signed in.').waitFor()
    await page.getByRole('button', { name: 'Show History' }).click()
    await page.getByRole('button', { name: 'Open settings dialog' }).click()
    await page.getByRole('button', { name: 'Dark' }).click()
    expect(await page.getByText('Persist headers').count()).toBe(0)
    await page.keyboard.press('Escape')
    const lines = () => page.locator('.graphiql-query-editor .view-line').count()
    await write('Operation Editor', '{echo(text:"x")}')
    await eventually(lines).toBe(1)
    await page.getByRole('button', { name: /Prettify query/ }).click()
    await eventually(lines).toBeGreaterThan(2)
    await write('Operation Editor', '')
    await page.keyboard.type('{ ')
    await page.keyboard.press('Control+Space')
    await page.locator('.suggest-widget.visible .monaco-list-row').first().waitFor()
  })
}, 30_000)
