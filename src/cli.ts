import { readFile } from 'node:fs/promises'
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { Command, InvalidArgumentError } from 'commander'
import type { NewAdmin } from './administration.ts'
import { ConfigError, loadConfig } from './config.ts'
import { readManifest } from './modules/persisted/manifest.ts'
import { pushOperations } from './pushOperations.ts'

const print = (text: string): void => void process.stdout.write(`${text}\n`)

/** What works on the database itself brings the whole platform with it, which the commands of a client should not wait for. */
const administration = () => import('./administration.ts')

function jsonObject(text: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new InvalidArgumentError('Expected well-formed JSON.')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new InvalidArgumentError('Expected a JSON object, e.g. {"message":"hello"}.')
  return value as Record<string, unknown>
}

const program = new Command('mcp-platform')
  .description('The MCP Online Platform: a secure front door for a team’s MCP services.')
  .showHelpAfterError()

const admin = program
  .command('admin')
  .description('Administration on the database itself; reads the settings of the server.')

admin
  .command('create')
  .description('Founds an organisation with its first administrator.')
  .requiredOption('--email <address>', 'the administrator’s e-mail address, for signing in')
  .requiredOption('--name <name>', 'the administrator’s name')
  .requiredOption('--organization <name>', 'the organisation’s name')
  .option('--password-stdin', 'read the password from standard input; otherwise one is made and shown once', false)
  .action(async (options: NewAdmin) => (await administration()).createAdmin(options, print))

program
  .command('keys')
  .description('The keys that sign access tokens.')
  .command('rotate')
  .description('Makes a new signing key; the one before verifies until its last token has expired.')
  .action(async () => (await administration()).rotateKeys(print))

const operations = program
  .command('operations')
  .description('Registered operations of an organisation, with the key in MCP_API_KEY.')

operations
  .command('push')
  .description(
    'Registers the documents of a manifest (graphql-codegen client preset, Apollo or Relay), all or nothing.',
  )
  .argument('<manifest>', 'path of the JSON file')
  .requiredOption('--url <address>', 'address of the platform, e.g. http://127.0.0.1:4000')
  .action(async (path: string, { url }: { url: string }) => {
    const entries = readManifest(JSON.parse(await readFile(path, 'utf8')))
    const { clientApiKey } = loadConfig()
    if (!clientApiKey) throw new Error('Set MCP_API_KEY to a key with mcp:read and mcp:write.')
    const answer = await pushOperations(url, clientApiKey, entries)
    for (const { sha256, name, requiredScopes, cost } of answer)
      print([sha256, name ?? '(unnamed)', `needs ${requiredScopes.join(' ')}`, `costs ${cost}`].join('\t'))
  })

operations
  .command('check')
  .description(
    'Reads every registered operation again under the schema of this build; ends with 1 when one would no longer run. On the database itself; reads the settings of the server.',
  )
  .option('--dry-run', 'store nothing of what changed', false)
  .action(async ({ dryRun }: { dryRun: boolean }) => {
    const { checkOperations } = await administration()
    if (!(await checkOperations({ store: !dryRun }, print))) process.exitCode = 1
  })

program
  .command('call')
  .description('Calls a tool as an MCP client, with the key in MCP_API_KEY. Without a tool: lists the tools.')
  .argument('<url>', 'address of the service, e.g. http://127.0.0.1:4000/mcp/demo/notebook')
  .argument('[tool]', 'name of the tool to call')
  .argument('[arguments]', 'its arguments, a JSON object', jsonObject, {})
  .action(async (url: string, tool: string | undefined, values: Record<string, unknown>) => {
    const { clientApiKey } = loadConfig()
    const client = new Client({ name: 'mcp-platform', version: '1.0.0' }, { versionNegotiation: { mode: 'auto' } })
    const headers = clientApiKey ? { Authorization: `Bearer ${clientApiKey}` } : {}
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }))
    try {
      if (!tool) {
        const { tools } = await client.listTools()
        for (const { name, description } of tools) print(`${name}\t${description ?? ''}`)
        return
      }
      const result = await client.callTool({ name: tool, arguments: values })
      print(JSON.stringify(result, null, 2))
      if (result.isError) process.exitCode = 1
    } finally {
      await client.close()
    }
  })

try {
  await program.parseAsync()
} catch (error) {
  const shown = error instanceof ConfigError || error instanceof Error ? error.message : String(error)
  process.stderr.write(`${shown}\n`)
  process.exitCode = 1
}
