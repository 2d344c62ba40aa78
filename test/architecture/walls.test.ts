import { execFile } from 'node:child_process'
import { mkdtemp, mkdir, rm, symlink, writeFile, cp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

const cruise = async (directory: string): Promise<string> => {
  const depcruise = join(root, 'node_modules/.bin/depcruise')
  const options = { cwd: directory, maxBuffer: 2 ** 24 }
  return run(depcruise, ['src', '--config', '.dependency-cruiser.js', '--output-type', 'err'], options).then(
    ({ stdout }) => stdout,
    (error: { stdout: string }) => error.stdout,
  )
}

describe('the walls of the house', () => {
  it('stand: every floor imports only from floors below it, modules only from earlier ones', async () => {
    expect(await cruise(root)).toContain('no dependency violations found')
  })

  describe('would notice', () => {
    let copy: string
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
    })
    afterAll(() => rm(copy, { recursive: true, force: true }))

    it('each breach, by name', async () => {
      const found = await cruise(copy)
      for (const name of [
        'kernel-at-the-ground: src/kernel/breach.ts',
        'language-below-modules: src/graphql/breach.ts',
        'accounts-knows-only-earlier-modules: src/modules/accounts/breach.ts',
        'verbs-speak-no-language: src/modules/services/breach.ts',
        'one-database-client: src/modules/audit/breach.ts',
        'one-way-out: src/edge/breach.ts',
        'edge-below-processes: src/edge/breach.ts',
      ])
        expect(found).toContain(name)
    })
  })
})
