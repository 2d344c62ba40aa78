import { execFile } from 'node:child_process'
import { mkdtemp, mkdir, rm, symlink, writeFile, cp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

/** What dependency-cruiser finds in the sources of a folder, a line for each breach. */
async function cruise(directory: string): Promise<string[]> {
  const depcruise = join(root, 'node_modules/.bin/depcruise')
  const args = ['src', '--config', '.dependency-cruiser.js', '--output-type', 'err']
  const ended = run(depcruise, args, { cwd: directory, maxBuffer: 2 ** 24 })
  const { stdout } = await ended.catch((error: { stdout: string }) => error)
  expect(stdout).toMatch(/\d+ modules, \d+ dependencies cruised/)
  return stdout.split('\n').filter((line) => /^ +\w+ [\w-]+: /.test(line))
}

describe('the walls of the house', () => {
  let copy: string
  let found: string[]
  // The sources as they are, and beside them files that each breach a wall.
  beforeAll(async () => {
    copy = await mkdtemp(join(tmpdir(), 'mcp-walls-'))
    for (const name of ['src', 'tsconfig.json', 'package.json', '.dependency-cruiser.js'])
      await cp(join(root, name), join(copy, name), { recursive: true })
    await symlink(join(root, 'node_modules'), join(copy, 'node_modules'))
    const breaches = {
      'src/kernel/breach.ts': "import '../modules/accounts/operations.ts'",
      'src/graphql/breach.ts': "import '../edge/app.ts'",
      'src/modules/accounts/breach.ts': "import '../audit/schema.ts'",
      'src/modules/services/breach.ts': "import 'graphql'",
      'src/modules/audit/breach.ts':
        "import { PrismaClient } from '../../generated/prisma/client.ts'\nexport const c = PrismaClient",
      'src/edge/breach.ts': "import 'undici'\nimport '../main.ts'",
    }
    for (const [path, text] of Object.entries(breaches)) {
      await mkdir(join(copy, path, '..'), { recursive: true })
      await writeFile(join(copy, path), `${text}\n`)
    }
    found = await cruise(copy)
  })
  afterAll(() => rm(copy, { recursive: true, force: true }))

  it('stand: every floor imports only from floors below it, modules only from earlier ones', () => {
    expect(found.filter((line) => !line.includes(': src/') || !line.includes('/breach.ts'))).toEqual([])
  })

  it.each([
    'kernel-at-the-ground: src/kernel/breach.ts',
    'language-below-modules: src/graphql/breach.ts',
    'accounts-knows-only-earlier-modules: src/modules/accounts/breach.ts',
    'verbs-speak-no-language: src/modules/services/breach.ts',
    'one-database-client: src/modules/audit/breach.ts',
    'one-way-out: src/edge/breach.ts',
    'edge-below-processes: src/edge/breach.ts',
  ])('would notice a breach, by name: %s', (breach) => {
    expect(found.join('\n')).toContain(breach)
  })
})
