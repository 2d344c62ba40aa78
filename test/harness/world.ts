import type { FormattedExecutionResult } from 'graphql'
import { openPlatform } from '../../src/compose.ts'
import { loadConfig } from '../../src/config.ts'
import { createApp, type App } from '../../src/edge/app.ts'
import { Hasher } from '../../src/kernel/hashing.ts'
import { createLog } from '../../src/kernel/log.ts'
import { closeResources, type Platform } from '../../src/kernel/platform.ts'
import { buildSchema } from '../../src/schema.ts'
import type { TypedDocumentString } from '../generated/graphql.ts'
import { createDatabase, type TestDatabase } from './database.ts'

export const origin = 'http://platform.test'

export type Answer<Data = Record<string, unknown>> = {
  status: number
  headers: Headers
  data: Data
  errors: readonly {
    message: string
    path?: readonly (string | number)[]
    extensions: Record<string, unknown> & { code: string }
  }[]
  /** Of the first error, if any. */
  code: string | undefined
  extensions: Record<string, unknown> & { statements: number; cost: { requested: number } }
}

export type Credential = { authorization?: string; 'x-api-key'?: string }

/** A running platform and the public door to it: everything goes through `fetch`, as it would over HTTP. */
export type World = {
  platform: Platform
  app: App
  database: TestDatabase
  /** What the log wrote, line by line. */
  logged: string[]
  /** All SQL statements since the last time this was emptied. */
  statements: string[]
  /** Round trips to the database since the last time this was emptied, each with its unit of work and what travelled in it. */
  exchanges: { unit: object; texts: readonly string[] }[]
  fetch(path: string, init?: RequestInit): Promise<Response>
  graphql<Data = Record<string, any>>(
    query: string,
    variables?: Record<string, unknown>,
    as?: Credential,
  ): Promise<Answer<Data>>
  /** A typed document, checked against the schema when the tests are generated. */
  run<Data, Variables>(
    document: TypedDocumentString<Data, Variables>,
    variables: Variables,
    as?: Credential,
  ): Promise<Answer<Data>>
  post<Data = Record<string, any>>(body: unknown, as?: Credential): Promise<Answer<Data>>
  close(): Promise<void>
}

// One for all worlds of a worker, as one serves all requests of a process.
const schema = buildSchema()

const settings = { PUBLIC_URL: origin, BCRYPT_COST: '10', UPSTREAM_ALLOWED_CIDRS: '127.0.0.0/8', LOG_LEVEL: 'debug' }

/** Work that goes on behind answers and belongs to no request: mail that leaves, and when a credential was last used. */
export const behind = /^\s*(UPDATE|DELETE FROM) (\S*mail_outbox|sessions s SET last_used_at|api_keys SET last_used_at)/

/** The statements that requests took since the last time they were emptied. */
export const asked = ({ statements }: Pick<World, 'statements'>): string[] =>
  statements.filter((text) => !behind.test(text))

export async function readAnswer<Data>(response: Response): Promise<Answer<Data>> {
  const body = (await response.json()) as FormattedExecutionResult
  const errors = (body.errors ?? []) as Answer['errors']
  return {
    status: response.status,
    headers: response.headers,
    data: body.data as Data,
    errors,
    code: errors[0]?.extensions.code,
    extensions: (body.extensions ?? {}) as Answer['extensions'],
  }
}

type Overrides = Record<string, string>
type More = NonNullable<Parameters<typeof openPlatform>[2]>

// Hashes cost next to nothing where a test does not set their cost; the least that the settings allow would be most of the suite's time.
const hasherOf = (overrides: Overrides, { hasher }: More): Hasher | undefined =>
  hasher ?? ('BCRYPT_COST' in overrides ? undefined : new Hasher(4))

/** The public door to a platform. */
function doorTo(app: App): Pick<World, 'fetch' | 'graphql' | 'post' | 'run'> {
  const fetch: World['fetch'] = (path, init) =>
    app.fetch(new Request(new URL(path, origin), init), { remoteAddress: '192.0.2.1' })
  const post: World['post'] = async (body, as = {}) =>
    readAnswer(
      await fetch('/graphql', {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...as },
        body: typeof body === 'string' ? body : JSON.stringify(body),
      }),
    )
  return {
    fetch,
    post,
    run: (document, variables, as = {}) => post({ query: String(document), variables }, as),
    graphql: (query, variables = {}, as = {}) => post({ query, variables }, as),
  }
}

/** Opens a platform on a database of its own (or one that is handed in), with settings over the test defaults. */
export async function createWorld(
  overrides: Overrides = {},
  { database, ...more }: More & { database?: TestDatabase } = {},
): Promise<World> {
  const own = database ?? (await createDatabase())
  const logged: string[] = []
  const statements: string[] = []
  const config = loadConfig({ ...settings, ...own.settings, ...overrides })
  const log = createLog(config, { write: (line: string) => void logged.push(line) })
  const hasher = hasherOf(overrides, more)
  const exchanges: World['exchanges'] = []
  const onStatement = (text: string): void => void statements.push(text)
  const onExchange = (unit: object, texts: readonly string[]): void => void exchanges.push({ unit, texts })
  const platform = await openPlatform(config, log, { onStatement, onExchange, ...more, ...(hasher ? { hasher } : {}) })
  const app = createApp(platform, schema)
  return {
    ...{ platform, app, database: own, logged, statements, exchanges },
    ...doorTo(app),
    async close() {
      await app.close()
      if (!database) await own.drop()
    },
  }
}

/**
 * A second instance beside a world, to be closed before it. On a server it is a platform of its own. The embedded database
 * lives in one process, so there it shares that and nothing else: caches, counters, signing keys and app are its own.
 */
export async function createTwin(world: World, overrides: Overrides = {}, more: More = {}): Promise<World> {
  const { database, platform: first, statements, exchanges } = world
  const clock = more.clock ?? first.clock
  if (!database.embedded) return createWorld(overrides, { clock, ...more, database })
  const logged: string[] = []
  const config = loadConfig({ ...settings, ...database.settings, ...overrides })
  const log = createLog(config, { write: (line: string) => void logged.push(line) })
  const hasher = hasherOf(overrides, more) ?? new Hasher(config.bcryptCost)
  const platform: Platform = { ...first, config, log, clock, hasher, publicUrl: config.publicUrl ?? first.publicUrl }
  const app = createApp(platform, schema)
  return {
    ...{ platform, app, database, logged, statements, exchanges },
    ...doorTo(app),
    close: () => closeResources(platform),
  }
}
