import type { Connection, CustomTypesConfig, FieldDef, PoolClient, Submittable } from 'pg'
import { prepareValue } from 'pg/lib/utils.js'

/** One statement of an exchange. With a name it is prepared once a connection and then only bound. */
export type Statement = {
  text: string
  values: readonly unknown[]
  name?: string | undefined
  types?: CustomTypesConfig | undefined
}

export type StatementResult = { fields: FieldDef[]; rows: unknown[][]; rowCount: number; command: string }

/** The part of pg's wire connection that the extended query protocol needs; its published typings lag behind. */
type Wire = {
  parse(message: { name: string; text: string; types: number[] }): void
  bind(message: { statement: string; values: readonly unknown[]; valueMapper: (value: unknown) => unknown }): void
  describe(message: { type: 'P'; name: string }): void
  execute(message: Record<string, never>): void
  close(message: { type: 'S'; name: string }): void
  sync(): void
  stream: { cork?: () => void; uncork?: () => void }
}

// Whether a named statement is known to a connection. After a failed exchange that is in doubt, and a Close (which is no
// error for an unknown name) settles it.
const prepared = new WeakMap<object, Map<string, 'ready' | 'doubtful'>>()

const preparedOn = (wire: object): Map<string, 'ready' | 'doubtful'> => {
  const known = prepared.get(wire) ?? new Map<string, 'ready' | 'doubtful'>()
  prepared.set(wire, known)
  return known
}

/**
 * Several statements with a single Sync: one round trip and, outside an explicit transaction, one implicit transaction
 * (PostgreSQL, Frontend/Backend Protocol, "Pipelining"). All but the last are a prelude, whose rows are dropped.
 * This is how an identity travels together with the query that it guards.
 */
class Exchange implements Submittable {
  readonly #statements: readonly Statement[]
  readonly #settle: (error: unknown, result: StatementResult) => void
  readonly #result: StatementResult = { fields: [], rows: [], rowCount: 0, command: '' }
  #parsers: ((value: string) => unknown)[] = []
  #completed = 0
  #known: Map<string, 'ready' | 'doubtful'> = new Map()
  #error: unknown = null

  constructor(statements: readonly Statement[], settle: (error: unknown, result: StatementResult) => void) {
    this.#statements = statements
    this.#settle = settle
  }

  submit(connection: Connection): void {
    const wire = connection as unknown as Wire
    this.#known = preparedOn(connection)
    wire.stream.cork?.()
    try {
      for (const [i, statement] of this.#statements.entries())
        this.#send(wire, statement, i === this.#statements.length - 1)
      wire.sync()
    } finally {
      wire.stream.uncork?.()
    }
  }

  #send(wire: Wire, { name = '', text, values }: Statement, last: boolean): void {
    const state = name ? this.#known.get(name) : undefined
    if (state === 'doubtful') wire.close({ type: 'S', name })
    if (state !== 'ready') wire.parse({ name, text, types: [] })
    wire.bind({ statement: name, values, valueMapper: prepareValue })
    if (last) wire.describe({ type: 'P', name: '' })
    wire.execute({})
    if (name && state !== 'ready') this.#known.set(name, 'doubtful')
  }

  get #last(): Statement | undefined {
    return this.#statements.at(-1)
  }

  handleRowDescription({ fields }: { fields: FieldDef[] }): void {
    this.#result.fields = fields
    const types = this.#last?.types
    this.#parsers = fields.map(
      (field) => (types ? types.getTypeParser(field.dataTypeID, 'text') : String) as (value: string) => unknown,
    )
  }

  handleDataRow({ fields }: { fields: (string | null)[] }): void {
    if (this.#completed < this.#statements.length - 1) return
    const parsers = this.#parsers
    this.#result.rows.push(fields.map((value, i) => (value === null ? null : parsers[i]?.(value))))
  }

  handleCommandComplete({ text }: { text: string }): void {
    this.#completed += 1
    const words = text.split(' ')
    this.#result.command = words[0] ?? ''
    this.#result.rowCount = Number(words.at(-1)) || 0
  }

  handleError(error: unknown): void {
    this.#error ??= error
    // The connection is told at ReadyForQuery as well, unless it is lost.
    this.#settle(error, this.#result)
  }

  handleReadyForQuery(): void {
    if (this.#error) return
    for (const { name } of this.#statements) if (name) this.#known.set(name, 'ready')
    this.#settle(null, this.#result)
  }

  handlePortalSuspended(): void {}
  handleEmptyQuery(): void {}
  handleCopyInResponse(connection: { sendCopyFail(message: string): void }): void {
    connection.sendCopyFail('not supported')
  }
  handleCopyData(): void {}
}

/** Sends the statements in one round trip and answers with the last one's result. */
export const exchange = (client: PoolClient, statements: readonly Statement[]): Promise<StatementResult> =>
  new Promise((resolve, reject) => {
    client.query(new Exchange(statements, (error, result) => (error ? reject(error as Error) : resolve(result))))
  })
