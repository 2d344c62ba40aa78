import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { promisify } from 'node:util'

export type RunningProcess = { pid: number; parent: number; group: number; session: number; residentBytes: number }

const run = promisify(execFile)

/** Every process of this machine, or of this container. */
export async function processTable(): Promise<RunningProcess[]> {
  const names = await readdir('/proc').catch(() => [])
  const pids = names.filter((name) => /^\d+$/.test(name))
  if (pids.length === 0) return fromPs()
  const rows: RunningProcess[] = []
  for (const pid of pids) {
    // It may have ended since it was listed.
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
    const fields = new Map(status.split('\n').map((line) => line.split(':\t', 2) as [string, string]))
    // In a namespace of its own a process has several ids; the first is the one that /proc knows it by.
    const number = (name: string): number => parseInt(fields.get(name) ?? '0', 10)
    const [parent, group, session, kibibytes] = [number('PPid'), number('NSpgid'), number('NSsid'), number('VmRSS')]
    if (status !== '') rows.push({ pid: Number(pid), parent, group, session, residentBytes: kibibytes * 1024 })
  }
  return rows
}

/** Where there is no `/proc`, as on macOS. */
async function fromPs(): Promise<RunningProcess[]> {
  const { stdout } = await run('ps', ['-A', '-o', 'pid=,ppid=,pgid=,sess=,rss='])
  return stdout.split('\n').flatMap((line) => {
    const [pid = 0, parent = 0, group = 0, session = 0, kibibytes = 0] = line.trim().split(/\s+/).map(Number)
    return pid ? [{ pid, parent, group, session: session || 0, residentBytes: kibibytes * 1024 }] : []
  })
}

/** A process that leads a session of its own, with all that came of it: by descent, or by never having left its group or session. */
export function familyOf(leader: number, table: readonly RunningProcess[]): RunningProcess[] {
  const members = new Map<number, RunningProcess>()
  for (const row of table)
    if (row.pid === leader || row.group === leader || row.session === leader) members.set(row.pid, row)
  for (let found = true; found;) {
    found = false
    for (const row of table)
      if (!members.has(row.pid) && members.has(row.parent)) {
        members.set(row.pid, row)
        found = true
      }
  }
  return [...members.values()]
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It is gone already, which is what was wanted.
  }
}

/**
 * Ends the whole family at once, each group as a group, so that nothing is born meanwhile. `marker` stands in the
 * environment of all of them, also of those that have left both family and group.
 */
export async function killFamily(leader: number, marker: string): Promise<void> {
  const table = await processTable().catch(() => [])
  signal(-leader, 'SIGKILL')
  for (const { pid, group } of familyOf(leader, table)) signal(group === pid ? -pid : pid, 'SIGKILL')
  for (const { pid } of table) if (await isMarked(pid, marker)) signal(pid, 'SIGKILL')
}

const isMarked = async (pid: number, marker: string): Promise<boolean> =>
  (await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')).split('\0').includes(marker)

export const askToEnd = (leader: number): void => signal(-leader, 'SIGTERM')
