import type { Prisma } from '../../generated/prisma/client.ts'
import type { StatementResult } from './exchange.ts'
import type { Query } from './lease.ts'
import { compileSelection, modelOfDelegate, type Tables } from './selection.ts'

type Tx = Prisma.TransactionClient
type Args = Readonly<Record<string, unknown>>
type Method = (args?: Args) => Promise<unknown>

type Ways = {
  tables: Tables
  /** Sends one statement with the reader's identity. */
  run: (query: Query) => Promise<StatementResult>
  /** Prisma's client under the same identity; opened when it is first asked for. */
  prisma: () => Promise<Tx>
}

async function rowsOf({ tables, run }: Ways, name: string, args: Args, most?: 1): Promise<object[] | null> {
  const model = modelOfDelegate.get(name)
  const compiled = model ? compileSelection(tables, model, args, most) : null
  if (!compiled) return null
  const { rows } = await run({ text: compiled.text, values: compiled.values })
  return rows.map(([json]) => compiled.decode(JSON.parse(json as string)))
}

function delegate(ways: Ways, name: string): Record<string, Method> {
  const byPrisma =
    (method: string): Method =>
    async (args) =>
      ((await ways.prisma()) as unknown as Record<string, Record<string, Method>>)[name]?.[method]?.(args)
  const short: Record<string, Method> = {
    findMany: async (args = {}) => (await rowsOf(ways, name, args)) ?? byPrisma('findMany')(args),
    findFirst: async (args = {}) => {
      const rows = await rowsOf(ways, name, args, 1)
      return rows ? (rows[0] ?? null) : byPrisma('findFirst')(args)
    },
  }
  return new Proxy(short, {
    get: (known, method) => (typeof method === 'string' ? (known[method] ??= byPrisma(method)) : undefined),
  })
}

/**
 * Reads as one actor. Lists and first rows go to the database as one compiled statement each; everything else, and what is
 * not compiled, goes through Prisma. Both send each statement with its identity, in one round trip.
 */
export function reading(ways: Ways): Tx {
  const delegates = new Map<string, object>()
  return new Proxy({} as Tx, {
    has: (_none, name) => typeof name === 'string' && (modelOfDelegate.has(name) || name.startsWith('$')),
    get(_none, name) {
      // Nothing here is awaited itself.
      if (typeof name !== 'string' || name === 'then') return undefined
      if (name.startsWith('$'))
        return async (...given: unknown[]) =>
          ((await ways.prisma()) as unknown as Record<string, (...given: unknown[]) => unknown>)[name]?.(...given)
      if (!modelOfDelegate.has(name)) return undefined
      const known = delegates.get(name) ?? delegate(ways, name)
      delegates.set(name, known)
      return known
    },
  })
}
