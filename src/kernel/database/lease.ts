import { EventEmitter } from 'node:events'
import type { CustomTypesConfig, Pool, PoolClient } from 'pg'
import type { Actor } from '../actor.ts'
import { AppError, mustEnrol } from '../errors.ts'
import type { FairQueue } from '../fairQueue.ts'
import { tenantOf } from '../source.ts'
import { exchange, type Statement, type StatementResult } from './exchange.ts'
import { prelude } from './identity.ts'

/** What one unit of work is allowed and has used. Handed to its lease by the bind statement. */
export type Work = {
  actor: Actor
  /** `read`: each statement is its own transaction on any connection. `write`: one transaction on one connection. */
  mode: 'read' | 'write'
  pool: Pool
  /** Whose turn it is on the pool's connections. */
  queue: FairQueue
  embedded: boolean
  /** The registered operation that the work runs, where it was found in memory and is to be confirmed. */
  operationId?: string | undefined
  /** Called once a statement, for counting and tracing. */
  onStatement: (text: string) => void
  /** Called once a round trip, with all that travels in it. */
  onExchange?: ((unit: object, texts: readonly string[]) => void) | undefined
}

/** What Prisma's adapter sends as a query. */
export type Query = { text: string; values: readonly unknown[]; types?: CustomTypesConfig }

const nothing: StatementResult = { fields: [], rows: [], rowCount: 0, command: '' }

/** What `app.identify` refuses: a credential that does not stand, or one whose holder must enrol a second factor first. */
function refusedByDatabase(error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'MC401')
    return new AppError('UNAUTHENTICATED', 'Your credential is no longer valid. Sign in again.', { cause: error })
  if (code === 'MC404')
    return new AppError('PERSISTED_QUERY_NOT_FOUND', 'No such persisted operation.', { cause: error })
  return code === 'MC403' ? mustEnrol(error) : error
}

// Statement texts come from Prisma's compiler and from our own source, so they repeat; a bound keeps odd ones
// (an IN list of every length) from filling each connection's memory with prepared statements.
const names = new Map<string, string>()
const nameOf = (text: string): string | undefined => {
  const known = names.get(text)
  if (known !== undefined || names.size >= 1000) return known
  const name = `s${names.size}`
  names.set(text, name)
  return name
}

function send(work: Work, connection: PoolClient, statements: readonly Statement[]): Promise<StatementResult> {
  work.onExchange?.(
    work,
    statements.map(({ text }) => text),
  )
  return exchange(connection, statements)
}

const named = ({ text, values, types }: Query): Statement => ({ text, values, types, name: nameOf(text) })

/** One statement in a transaction of its own, with its identity, on any free connection: one round trip. */
async function sendAlone(work: Work, query: Query): Promise<StatementResult> {
  const leave = await work.queue.enter(tenantOf(work.actor))
  try {
    const connection = await work.pool.connect()
    try {
      return await send(work, connection, [...prelude(work.actor, work), named(query)])
    } finally {
      connection.release()
    }
  } finally {
    leave()
  }
}

/** The same for a statement that is a whole unit of work. */
export async function runAlone(work: Work, query: Query): Promise<StatementResult> {
  work.onStatement(query.text)
  return sendAlone(work, query).catch((error: unknown) => {
    throw refusedByDatabase(error)
  })
}

export const bindStatement = 'SELECT app.bind($1)'

/**
 * What Prisma's adapter takes for a connection with a transaction on it. It holds no connection of its own: until it is
 * bound to an actor it refuses everything; then a reading lease sends each statement together with its identity to any
 * free connection, and a writing lease opens its transaction with its first statement, identity included.
 */
export class Lease extends EventEmitter {
  readonly #claim: (handle: unknown) => Work
  #work: Work | null = null
  /** Of a writing lease, from its first statement on. Statements of one tick share it, in the order they came. */
  #connection: Promise<PoolClient> | null = null
  #leave: () => void = () => {}
  #over = false

  constructor(claim: (handle: unknown) => Work) {
    super()
    this.#claim = claim
  }

  async query(query: Query): Promise<StatementResult> {
    const { text, values } = query
    if (this.#over) throw new Error('The unit of work is over.')
    if (text === 'BEGIN') return nothing
    if (text === 'COMMIT' || text === 'ROLLBACK') return this.#end(text)
    if (text === bindStatement) {
      if (this.#work) throw new Error('A unit of work is bound once.')
      this.#work = this.#claim(values[0])
      return nothing
    }
    const work = this.#work
    if (!work) throw new Error('A statement came without an identity.')
    work.onStatement(text)
    try {
      return await (work.mode === 'read' ? sendAlone(work, query) : this.#write(work, named(query)))
    } catch (error) {
      throw refusedByDatabase(error)
    }
  }

  async #write(work: Work, statement: Statement): Promise<StatementResult> {
    if (this.#connection) return send(work, await this.#connection, [statement])
    this.#connection = this.#take(work)
    const begin = { text: 'BEGIN', values: [] }
    return send(work, await this.#connection, [begin, ...prelude(work.actor, work), statement])
  }

  async #take(work: Work): Promise<PoolClient> {
    const leave = await work.queue.enter(tenantOf(work.actor))
    try {
      const connection = await work.pool.connect()
      this.#leave = leave
      return connection
    } catch (error) {
      leave()
      throw error
    }
  }

  async #end(text: 'COMMIT' | 'ROLLBACK'): Promise<StatementResult> {
    const connection = await this.#connection?.catch(() => null)
    if (!connection || !this.#work) return nothing
    const ended = await send(this.#work, connection, [{ text, values: [] }])
    // PostgreSQL answers COMMIT of a failed transaction with ROLLBACK and no error.
    if (ended.command !== text) throw new Error('The transaction was rolled back: one of its statements had failed.')
    return ended
  }

  /** Called by the adapter once, after COMMIT or ROLLBACK. */
  release(error?: unknown): void {
    this.#over = true
    void this.#connection?.then((connection) => {
      connection.release(error instanceof Error)
      this.#leave()
    }, () => {}) // prettier-ignore
    this.#connection = null
  }
}
