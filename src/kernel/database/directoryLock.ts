import { open, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/**
 * Takes a folder for this process by a file that holds its id; a file left by a process that is gone is taken over.
 * Answers with the release.
 */
export async function lockDirectory(directory: string): Promise<() => Promise<void>> {
  const path = join(directory, 'lock')
  for (let attempt = 0; attempt < 2; attempt += 1) {
    try {
      const file = await open(path, 'wx', 0o600)
      await file.writeFile(String(process.pid))
      await file.close()
      return () => rm(path, { force: true })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      const holder = Number(await readFile(path, 'utf8').catch(() => ''))
      if (holder > 0 && holder !== process.pid && alive(holder))
        throw new Error(`Another process (${holder}) uses ${directory}. Stop it, or choose another DATA_DIR.`, {
          cause: error,
        })
      await rm(path, { force: true })
    }
  }
  throw new Error(`${path} could not be taken. Remove it if no other process uses this folder.`)
}
