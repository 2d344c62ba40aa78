import { cp, mkdir, mkdtemp, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { root, run } from './process.ts'

/** A copy of what git knows but the browser's pages, with what is generated; dependencies are shared. */
export async function copyOfTree(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'mcp-copy-'))
  const { stdout } = await run('git', ['ls-files', '-co', '--exclude-standard'])
  const files = stdout.split('\n').filter((file) => file && !file.startsWith('src/edge/graphiql/'))
  for (const file of files) {
    await mkdir(dirname(join(folder, file)), { recursive: true })
    await cp(join(root, file), join(folder, file))
  }
  for (const generated of ['src/generated', 'test/generated'])
    await cp(join(root, generated), join(folder, generated), { recursive: true })
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
  return folder
}
