import { PrismaPg } from '@prisma/adapter-pg'
import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { Prisma, PrismaClient } from '../../generated/prisma/client.ts'
import type { Actor } from '../actor.ts'
import { FairQueue } from '../fairQueue.ts'
import { databaseRole, type DatabaseRole } from './identity.ts'
import type { StatementResult } from './exchange.ts'
import { Lease, runAlone, type Query, type Work } from './lease.ts'
import { listenOn } from './listening.ts'
import { owned } from './owned.ts'
import { reading } from './reading.ts'
import { tablesOf, type Tables } from './selection.ts'
import type { Server } from './server.ts'

/** Typed access to the rows that one actor may see or change. */
export type Tx = Prisma.TransactionClient

type Parameter = string | number | boolean | Date | null | readonly string[]

/** A statement of our own, for `Database.statement`. */
export type Sql = { readonly text: string; readonly values: readonly Parameter[] }

// One text a place in the source: to put it together, and hash it, at every call is a noticeable part of one.
const texts = new WeakMap<TemplateStringsArray, string>()

/** What stands in `${…}` travels as a parameter, never as text. */
export function sql(strings: TemplateStringsArray, ...values: readonly Parameter[]): Sql {
  let text = texts.get(strings)
  if (text === undefined) texts.set(strings, (text = strings.reduce((all, next, i) => `${all}$${i}${next}`)))
  return { text, values }
}

/** A reader that stays open for a request. Each statement is one round trip, identity included, and its own snapshot. */
export type Reader = {
  tx: Tx
  /** Asks the database whether the credential still stands. */
  confirm(): Promise<void>
  close(): Promise<void>
}

type Options = {
  /** Longest life of one unit of work. */
  timeoutSeconds: number
  onStatement?: (text: string) => void
  /** Called once a round trip, with the unit of work that it belongs to and all that travels in it. */
  onExchange?: (unit: object, texts: readonly string[]) => void
  /** Default: `owned`. A test that asks what row level security holds by itself hands in another. */
  filtered?: (tx: Tx, actor: Actor) => Tx
}

/** Makes Prisma's adapter take leases instead of connections. Everything outside a unit of work is refused. */
class LeasePool extends pg.Pool {
  readonly #claim: (handle: unknown) => Work

  constructor(claim: (handle: unknown) => Work) {
    super({ max: 1 })
    this.#claim = claim
    // A lease has what the adapter uses of a pooled client: query, release and the emitter.
    this.connect = (() => Promise.resolve(new Lease(this.#claim))) as unknown as pg.Pool['connect']
    this.query = () => Promise.reject(new Error('A query came outside a unit of work.'))
  }
}

/**
 * Prisma sends what one tick asks of one transaction as a batch, stops at the first that fails, and answers the rest
 * with `undefined` instead of an error: a failed field would empty its siblings. Those never ran, so they are sent again;
 * each round settles one at least.
 */
const everyStatementIsAnswered = Prisma.defineExtension({
  query: {
    async $allOperations({ args, query }) {
      for (let round = 0; round < 1000; round += 1) {
        const result: unknown = await query(args)
        if (result !== undefined) return result
      }
      throw new Error('A statement was not answered.')
    },
  },
})

/**
 * The one door to the database. Nothing else holds a client, and nothing passes without an actor.
 *
 * Each unit of work is a Prisma transaction of its own. That keeps Prisma from batching look-ups across requests (it
 * batches `findUnique` calls of one tick, but never across transactions), and the first statement binds the work to its
 * actor by a handle that is used once, so no ambient state decides whose identity a statement carries.
 */
export class Database {
  readonly #server: Server
  readonly #prisma: PrismaClient
  readonly #tables: Tables
  readonly #pending = new Map<string, Work>()
  readonly #options: Options
  readonly #queues: Record<DatabaseRole, FairQueue>

  constructor(server: Server, options: Options) {
    this.#server = server
    this.#options = options
    const queueOf = (role: DatabaseRole): FairQueue => {
      const { max } = server.pool(role).options
      return new FairQueue(max, { longest: 4096, patienceMs: options.timeoutSeconds * 1000 })
    }
    // The embedded database has one connection, and so one line, whatever the role.
    const app = queueOf('mcp_app')
    this.#queues = { mcp_app: app, mcp_system: server.embedded ? app : queueOf('mcp_system') }
    const pool = new LeasePool((handle) => this.#claim(handle))
    const client = new PrismaClient({ adapter: new PrismaPg(pool), errorFormat: 'minimal' })
    this.#tables = tablesOf(client)
    // An extension that adds no name leaves the types as they are.
    this.#prisma = client.$extends(everyStatementIsAnswered) as unknown as PrismaClient
  }

  #claim(handle: unknown): Work {
    const work = typeof handle === 'string' ? this.#pending.get(handle) : undefined
    if (!work || typeof handle !== 'string') throw new Error('Unknown unit of work.')
    this.#pending.delete(handle)
    return work
  }

  #work(
    actor: Actor,
    mode: Work['mode'],
    {
      onStatement = this.#options.onStatement,
      operationId,
    }: Pick<Options, 'onStatement'> & { operationId?: string | undefined } = {},
  ): Work {
    const role = databaseRole(actor)
    return {
      actor,
      mode,
      operationId,
      pool: this.#server.pool(role),
      queue: this.#queues[role],
      embedded: this.#server.embedded,
      onStatement: onStatement ?? (() => {}),
      onExchange: this.#options.onExchange,
    }
  }

  #run<T>(unit: Work, work: (tx: Tx) => Promise<T>): Promise<T> {
    const handle = randomUUID()
    this.#pending.set(handle, unit)
    const timeout = this.#options.timeoutSeconds * 1000
    return this.#prisma.$transaction(
      async (tx) => {
        await tx.$executeRaw`SELECT app.bind(${handle})`
        return work(tx)
      },
      { timeout, maxWait: timeout },
    ).finally(() => this.#pending.delete(handle)) // prettier-ignore
  }

  /** Opens Prisma's client for a reader; it stays open until it is closed. */
  #openPrisma(unit: Work): Promise<Pick<Reader, 'tx' | 'close'>> {
    return new Promise((resolve, reject) => {
      let finish: () => void = () => {}
      const finished = new Promise<void>((done) => (finish = done))
      const run = this.#run(unit, (tx) => {
        resolve({
          tx,
          close: async () => {
            finish()
            await run.catch(() => {})
          },
        })
        return finished
      })
      run.catch(reject)
    })
  }

  #filtered(tx: Tx, actor: Actor): Tx {
    const { filtered = owned } = this.#options
    return filtered(tx, actor)
  }

  #reader(unit: Work): Reader {
    let over = false
    let opened: Promise<Pick<Reader, 'tx' | 'close'>> | null = null
    const refuse = (): void => {
      if (over) throw new Error('The unit of work is over.')
    }
    const run = async (query: Query): Promise<StatementResult> => {
      refuse()
      return runAlone(unit, query)
    }
    const tx = reading({
      tables: this.#tables,
      run,
      prisma: async () => {
        refuse()
        return (await (opened ??= this.#openPrisma(unit))).tx
      },
    })
    return {
      tx: this.#filtered(tx, unit.actor),
      confirm: async () => void (await run({ text: 'SELECT 1', values: [] })),
      close: async () => {
        over = true
        await opened?.then((reader) => reader.close(), () => {}) // prettier-ignore
      },
    }
  }

  /** Reads as the actor. Row level security filters every row, and the credential is confirmed with each statement. */
  async read<T>(actor: Actor, work: (tx: Tx) => Promise<T>): Promise<T> {
    const reader = this.#reader(this.#work(actor, 'read'))
    try {
      return await work(reader.tx)
    } finally {
      await reader.close()
    }
  }

  /** One transaction as the actor: all of the work is durable when this resolves, or none of it is kept. */
  transact<T>(actor: Actor, work: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#run(this.#work(actor, 'write'), (tx) => work(this.#filtered(tx, actor)))
  }

  /**
   * One statement of our own SQL as the actor: one transaction in one round trip, durable when this resolves. It goes past
   * Prisma's client, whose share of such a statement is larger than the database's. Values come as the driver reads them.
   */
  async statement<Row>(actor: Actor, { text, values }: Sql): Promise<Row[]> {
    const { fields, rows } = await runAlone(this.#work(actor, 'read'), { text, values, types: pg.types })
    return rows.map((row) => Object.fromEntries(fields.map(({ name }, i) => [name, row[i]])) as Row)
  }

  /**
   * A reader for the length of a request; it costs nothing until it is used. The opener closes it. With an operation's id
   * each statement also confirms that the operation is still registered.
   */
  openReader(actor: Actor, onStatement?: (text: string) => void, operationId?: string): Reader {
    return this.#reader(
      this.#work(actor, 'read', {
        operationId,
        onStatement: (text) => {
          this.#options.onStatement?.(text)
          onStatement?.(text)
        },
      }),
    )
  }

  /**
   * One statement of the throttle's counters, as the platform itself, on the connections that this door owns. It goes past
   * Prisma, whose work would cost more than the count. The embedded database has no second instance to count with.
   */
  count(statement: { text: string; values: unknown[]; name?: string }): Promise<pg.QueryResult> {
    if (this.#server.embedded) return Promise.reject(new Error('Counters of the embedded database are kept in memory.'))
    this.#options.onExchange?.(this, [statement.text])
    return this.#server.pool('mcp_system').query(statement)
  }

  /** How busy the connections of each role are. */
  load(): { role: DatabaseRole; taken: number; waiting: number }[] {
    const roles: DatabaseRole[] = this.#server.embedded ? ['mcp_app'] : ['mcp_app', 'mcp_system']
    return roles.map((role) => ({ role, taken: this.#queues[role].taken, waiting: this.#queues[role].waiting }))
  }

  /** Whether other instances may stand on the same database, so that news for them goes through it. */
  get announces(): boolean {
    return !this.#server.embedded
  }

  /** Hears what is announced on a channel; resolves with what ends it. */
  listen(channel: string, hear: (payload: string) => void): Promise<() => Promise<void>> {
    return listenOn(this.#server.pool('mcp_system'), channel, hear)
  }

  /** Resolves when the database answers. */
  async ping(actor: Actor): Promise<void> {
    await this.statement(actor, sql`SELECT 1`)
  }

  async close(): Promise<void> {
    await this.#prisma.$disconnect()
    await this.#server.close()
  }
}
