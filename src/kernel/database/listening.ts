import type pg from 'pg'

const firstPauseMs = 100
const longestPauseMs = 10_000

/**
 * Hears what is said on a channel of the database (`NOTIFY`), on a connection of its own that is made anew when it breaks.
 * Resolves once it listens. What is said while the connection is away is lost: this is for news, not for records.
 */
export async function listenOn(
  pool: pg.Pool,
  channel: string,
  hear: (payload: string) => void,
): Promise<() => Promise<void>> {
  let client: pg.PoolClient | undefined
  let timer: NodeJS.Timeout | undefined
  let closed = false

  async function open(pauseMs: number): Promise<void> {
    const opened = await pool.connect()
    if (closed) return opened.release()
    client = opened
    opened.on('notification', ({ payload }) => {
      if (payload !== undefined) hear(payload)
    })
    opened.once('error', () => {
      client = undefined
      opened.release(true)
      again(pauseMs)
    })
    await opened.query(`LISTEN ${opened.escapeIdentifier(channel)}`)
  }

  function again(pauseMs: number): void {
    if (closed) return
    const next = Math.min(pauseMs * 2, longestPauseMs)
    timer = setTimeout(() => void open(firstPauseMs).catch(() => again(next)), pauseMs).unref()
  }

  await open(firstPauseMs)
  return async () => {
    closed = true
    clearTimeout(timer)
    const held = client
    client = undefined
    await held?.query('UNLISTEN *').catch(() => undefined)
    held?.release(true)
  }
}
