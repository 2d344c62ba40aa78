import { readFile } from 'node:fs/promises'
import pg from 'pg'

// A tick is a hundredth of a second on every Linux that Node runs on (USER_HZ).
const msPerTick = 10

async function ticksOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  // After the command's closing bracket: state is the first field, user and system time the twelfth and thirteenth.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11] ?? 0) + Number(fields[12] ?? 0)
}

/**
 * CPU time that a server and PostgreSQL's backends of the bench have used, where both are on this machine. Unlike a rate
 * it hardly depends on what else the machine does.
 */
export async function openCpuMeter(serverUrl: string, databases: string) {
  const client = new pg.Client({ connectionString: serverUrl })
  await client.connect()
  const backends = async (): Promise<number[]> => {
    const { rows } = await client.query<{ pid: number }>('SELECT pid FROM pg_stat_activity WHERE datname LIKE $1', [databases]) // prettier-ignore
    return rows.map(({ pid }) => pid)
  }
  // By backend, since one that ends takes its time with it.
  const seen = new Map<number, number>()
  let spent = 0
  async function postgres(): Promise<number> {
    for (const pid of await backends()) {
      const ticks = await ticksOf(pid)
      spent += Math.max(0, ticks - (seen.get(pid) ?? 0))
      seen.set(pid, ticks)
    }
    return spent * msPerTick
  }
  return {
    read: async (pid: number) => ({ process: (await ticksOf(pid)) * msPerTick, postgres: await postgres() }),
    close: () => client.end(),
  }
}

export type CpuMeter = Awaited<ReturnType<typeof openCpuMeter>>
