import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { withConfigurationTable } from '../../src/printConfiguration.ts'
import { root, run, start, type Running } from '../harness/process.ts'

const readme = await readFile(join(root, 'README.md'), 'utf8')
const blocks = (text: string, language: string): string[] =>
  [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, body = '']) => body)
const tour = readme.slice(readme.indexOf('<!-- tour -->'), readme.indexOf('<!-- /tour -->'))

describe('the first five minutes, pasted', () => {
  let directory: string
  let server: Running
  let secrets: { password: string; key: string }
  const paste = (script: string) => run('bash', ['-eu', '-o', 'pipefail', '-c', script])

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'mcp-tour-'))
    server = await start({ DATA_DIR: directory })
    const shown = (name: string) => new RegExp(`^ +${name} +(\\S+)$`, 'm').exec(server.output())?.[1] ?? ''
    secrets = { password: shown('password'), key: shown('API key') }
  })
  afterAll(async () => {
    if (server) await server.stop()
    await rm(directory, { recursive: true })
  })

  it('prints one ready line, a password of 120 bits and a key', () => {
    expect(server.output().match(/^ready /gm)).toHaveLength(1)
    expect(secrets.password).toMatch(/^[\w-]{20}$/)
    expect(secrets.key).toMatch(/^mcp_sk_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}$/)
  })

  it('answers the printed GraphQL command with the registered operation', async () => {
    const [command = ''] = /^curl .*$/m.exec(server.output()) ?? []
    const { code, stdout } = await paste(command)
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({
      data: {
        viewer: {
          role: 'ORG_ADMIN',
          organization: { name: 'Demo', services: { edges: [{ node: { slug: 'notebook' } }] } },
        },
      },
    })
    expect(stdout).toContain('{"name":"echo","access":"READ"}')
  })

  it('answers the printed tool call through an MCP client', async () => {
    const [command = ''] = /^MCP_API_KEY=.*$/m.exec(server.output()) ?? []
    expect(command).toContain('npx mcp-platform call')
    const { code, stdout, stderr } = await paste(command)
    expect({ code, stderr }).toMatchObject({ code: 0 })
    expect(JSON.parse(stdout)).toMatchObject({ content: [{ type: 'text', text: 'hello' }] })
  })

  it('serves GraphiQL to a browser at the printed address', async () => {
    expect(server.output()).toContain(`\n${server.address}/graphql\n`)
    const page = await fetch(`${server.address}/graphql`, { headers: { accept: 'text/html' } })
    expect(page.status).toBe(200)
    expect(await page.text()).toMatch(/<script type="module"[^>]* src="\/graphiql\//)
  })

  it('shows the administrator of the README’s tour the calls, and the stranger nothing', async () => {
    const [secretsBlock = '', client = '', admin = '', stranger = ''] = blocks(tour, 'sh').map((block) =>
      block.replaceAll('http://127.0.0.1:4000', server.address),
    )
    const exports = secretsBlock.replace("'mcp_sk_…'", `'${secrets.key}'`).replace("'…'", `'${secrets.password}'`)
    expect(exports).not.toContain('…')

    const called = await paste(exports + client)
    expect(called).toMatchObject({ code: 0 })
    expect(called.stdout).toMatch(/^echo\t/m)
    expect(called.stdout).toContain('Remembered “tour”.')

    const seen = await paste(exports + admin)
    expect(seen.code).toBe(0)
    const { data } = JSON.parse(seen.stdout) as { data: { requestLog: { edges: { node: object }[] } } }
    expect(data.requestLog.edges[0]?.node).toMatchObject({
      service: 'notebook',
      tool: 'remember',
      arguments: { title: 'tour', note: 'I was here' },
      status: 'ok',
    })

    const unseen = await paste(exports + stranger)
    expect(JSON.parse(unseen.stdout)).toMatchObject({ data: { requestLog: { edges: [] }, services: { edges: [] } } })
  })

  it('takes the records away as files, as the README does', async () => {
    const [, , admin = ''] = blocks(tour, 'sh')
    const [taking = ''] = blocks(readme, 'sh').filter((block) => block.includes('/exports/'))
    const [log = '', usage = ''] = taking.trim().split('\n')
    // The token of the administrator's tour, by its own first lines.
    const signIn = admin.slice(0, admin.indexOf('curl -sS', admin.indexOf('sed -E')))
    const script = (command: string) =>
      `export MCP_API_KEY='${secrets.key}' DEMO_PASSWORD='${secrets.password}'\n${signIn}\n${command}`.replaceAll('http://127.0.0.1:4000', server.address) // prettier-ignore
    const csv = await paste(script(log.replace('&status=denied', '')))
    expect(csv.stdout).toMatch(/^[^\n]*service[^\n]*\n[^\n]*notebook/)
    const denied = await paste(script(log))
    expect(denied.stdout.trim().split('\n')).toHaveLength(1)
    const json = await paste(script(usage))
    expect(JSON.parse(json.stdout)).toMatchObject({ rows: [{ service: 'notebook' }, { service: 'notebook' }] })
  })

  it('registers a client’s documents and runs one by its digest, as the README does', async () => {
    const document = 'query Slugs { services(first: 5) { edges { node { slug } } } }'
    const sha256 = createHash('sha256').update(document).digest('hex')
    const manifest = join(directory, 'persisted-documents.json')
    await writeFile(manifest, JSON.stringify({ [sha256]: document }))
    const registering = blocks(readme, 'sh').find((block) => block.includes('operations push')) ?? ''
    const running = blocks(readme, 'sh').find((block) => block.includes('"documentId"')) ?? ''
    expect(registering && running).not.toBe('')
    const script = (command: string) =>
      `export MCP_API_KEY='${secrets.key}'\n${command}`.replaceAll('http://127.0.0.1:4000', server.address)
    const pushed = await paste(script(registering.replace('persisted-documents.json', manifest)))
    expect(pushed.stdout + pushed.stderr).toContain('Slugs')
    const answer = await paste(script(running.replace('<sha256>', sha256)))
    expect(JSON.parse(answer.stdout)).toMatchObject({ data: { services: { edges: [{ node: { slug: 'notebook' } }] } } })
  })

  it('makes no second demo on a later start, and the key still reaches the service', async () => {
    expect(await server.stop()).toBe(0)
    server = await start({ DATA_DIR: directory })
    expect(server.output()).not.toContain('password')
    const call = `npx mcp-platform call ${server.address}/mcp/demo/notebook echo '{"message":"again"}'`
    const { code, stdout } = await paste(`export MCP_API_KEY='${secrets.key}'\n${call}`)
    expect(code).toBe(0)
    expect(stdout).toContain('again')
  })
})

describe('the README', () => {
  it('holds the configuration table that src/config.ts makes', () => {
    expect(withConfigurationTable(readme)).toBe(readme)
  })

  it('shows code that stands in the files it names', async () => {
    const examples = blocks(readme, 'ts')
    expect(examples.length).toBeGreaterThan(2)
    for (const example of examples) {
      const [, path = '', code = ''] = /^\/\/ (\S+)\n([\s\S]*)$/.exec(example) ?? []
      expect(await readFile(join(root, path), 'utf8')).toContain(code.trim())
    }
  })

  it('tells scanners the pattern that keys are parsed by', async () => {
    const { apiKeyPattern, mintApiKey } = await import('../../src/modules/apiKeys/format.ts')
    const pattern = new RegExp(`^${blocks(readme, 'text')[0]?.trim() ?? ''}$`)
    const key = mintApiKey().text.reveal()
    expect([pattern.test(key), apiKeyPattern.test(key)]).toEqual([true, true])
  })
})
