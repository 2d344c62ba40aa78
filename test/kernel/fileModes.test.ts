import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openPlatform } from '../../src/compose.ts'
import { loadConfig } from '../../src/config.ts'
import { system } from '../../src/kernel/actor.ts'
import { createLog } from '../../src/kernel/log.ts'
import { mailer } from '../../src/kernel/mail.ts'
import { closeResources } from '../../src/kernel/platform.ts'

let parent: string
let directory: string
const modes = new Map<string, string>()
const modeOf = async (path: string): Promise<string> => ((await stat(path)).mode & 0o777).toString(8)

// A first start by somebody whose umask takes nothing away, so that the modes are the platform's own.
beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), 'mcp-modes-'))
  directory = join(parent, 'data')
  const umask = process.umask(0)
  try {
    const config = loadConfig({ DATA_DIR: directory, LOG_LEVEL: 'error' })
    const platform = await openPlatform(config, createLog(config))
    const after: (() => void)[] = []
    await platform.database.transact(system(), (tx) =>
      mailer(platform).send(
        { tx, actor: system(), now: platform.clock(), afterCommit: (effect) => void after.push(() => void effect()) },
        { to: 'ada@example.com', subject: 'Hello', text: 'A line.' },
      ),
    )
    await mailer(platform).deliver()
    for (const name of ['', 'master.key', 'lock', 'mail']) modes.set(name, await modeOf(join(directory, name)))
    for (const name of await readdir(join(directory, 'mail'))) modes.set('a mail', await modeOf(join(directory, 'mail', name)))
    await closeResources(platform)
    await platform.outbound.close()
    await platform.database.close()
  } finally {
    process.umask(umask)
  }
}) // prettier-ignore
afterAll(() => rm(parent, { recursive: true, force: true }))

it.each([
  ['the data folder', '', '700'],
  ['the master key', 'master.key', '600'],
  ['the lock', 'lock', '600'],
  ['the folder of mail', 'mail', '700'],
  ['a written mail', 'a mail', '600'],
])('lets nobody but the owner read %s', (_what, name, mode) => {
  expect(modes.get(name)).toBe(mode)
})
