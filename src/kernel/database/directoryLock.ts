import { randomUUID } from 'node:crypto'
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

const isCode = (error: unknown, code: string): boolean => (error as NodeJS.ErrnoException).code === code

/** Moves a dead process's file aside. One that another process put there meanwhile is put back. */
async function removeStale(path: string, holder: string): Promise<void> {
  const aside = `${path}.${randomUUID()}`
  try {
    await rename(path, aside)
    if ((await readFile(aside, 'utf8')) !== holder) await link(aside, path)
  } catch (error) {
    if (!isCode(error, 'ENOENT') && !isCode(error, 'EEXIST')) throw error
  } finally {
    await rm(aside, { force: true })
  }
}

/**
 * Takes a folder for this process by a file that holds its id; a file left by a process that is gone is taken over.
 * The file appears whole, by `link`, so that nobody reads it before the id is in it. Answers with the release.
 */
export async function lockDirectory(directory: string): Promise<() => Promise<void>> {
  const path = join(directory, 'lock')
  const own = `${path}.${randomUUID()}`
  await writeFile(own, String(process.pid), { mode: 0o600, flag: 'wx' })
  try {
    for (let attempt = 0; attempt < 5; attempt += 1) {
      try {
        await link(own, path)
        return () => rm(path, { force: true })
      } catch (error) {
        if (!isCode(error, 'EEXIST')) throw error
        const holder = await readFile(path, 'utf8').catch(() => '')
        const pid = Number(holder)
        if (pid > 0 && pid !== process.pid && alive(pid))
          throw new Error(`Another process (${pid}) uses ${directory}. Stop it, or choose another DATA_DIR.`, {
            cause: error,
          })
        await removeStale(path, holder)
      }
    }
  } finally {
    await rm(own, { force: true })
  }
  throw new Error(`${path} could not be taken. Remove it if no other process uses this folder.`)
}
