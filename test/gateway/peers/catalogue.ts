import { mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const require = createRequire(import.meta.url)
const stdioServer = fileURLToPath(new URL('stdioServer.mjs', import.meta.url))
const at = (name: string): string => require.resolve(`@modelcontextprotocol/${name}/dist/index.js`)

export type CatalogueFile = { path: string; folder: string; remove: () => Promise<void> }

/** An operator's file: the two reference servers, and one that misbehaves on demand in each era. */
export async function writeCatalogue(limits: Record<string, number> = {}): Promise<CatalogueFile> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'mcp-catalogue-')))
  const own = (title: string, environment: Record<string, string> = {}) => ({
    title,
    command: '${node}',
    arguments: [stdioServer, '${userId}'],
    environment,
    limits: { messageBytes: 2 ** 20, ...limits },
  })
  const services = {
    filesystem: { title: 'Files', command: '${node}', arguments: [at('server-filesystem'), folder] },
    memory: {
      title: 'Memory',
      command: '${node}',
      arguments: [at('server-memory')],
      environment: { MEMORY_FILE_PATH: '${workingDirectory}/memory.jsonl' },
    },
    modern: own('Modern', { TOKEN: '${credential}' }),
    legacy: own('Legacy', { TOKEN: '${credential}', ERA: 'legacy' }),
    hungry: { ...own('Hungry'), limits: { ...limits, messageBytes: 2 ** 20, memoryMebibytes: 150, processes: 8 } },
    brief: { ...own('Brief'), limits: { idleSeconds: 1, lifetimeSeconds: 4 } },
    absent: { title: 'Absent', command: '/nonexistent/server' },
  }
  const path = join(folder, 'catalogue.json')
  await writeFile(path, JSON.stringify({ services }))
  return { path, folder, remove: () => rm(folder, { recursive: true, force: true }) }
}
