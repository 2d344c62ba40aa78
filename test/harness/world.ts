import type { FormattedExecutionResult } from 'graphql'
import { openPlatform } from '../../src/compose.ts'
import { loadConfig } from '../../src/config.ts'
import { createApp, type App } from '../../src/edge/app.ts'
import { createLog } from '../../src/kernel/log.ts'
import type { Platform } from '../../src/kernel/platform.ts'
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
  /** SQL statements since the last time this was emptied. */
  statements: string[]
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

const settings = { PUBLIC_URL: origin, BCRYPT_COST: '10', UPSTREAM_ALLOWED_CIDRS: '127.0.0.0/8', LOG_LEVEL: 'debug' }

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

/** Opens a platform on a database of its own (or one that is handed in), with settings over the test defaults. */
export async function createWorld(
  overrides: Record<string, string> = {},
  { database, ...more }: Partial<Parameters<typeof openPlatform>[2]> & { database?: TestDatabase } = {},
): Promise<World> {
  const own = database ?? (await createDatabase())
  const logged: string[] = []
  const statements: string[] = []
  const config = loadConfig({ ...settings, ...own.settings, ...overrides })
  const log = createLog(config, { write: (line: string) => void logged.push(line) })
  const platform = await openPlatform(config, log, { onStatement: (text) => statements.push(text), ...more })
  const app = createApp(platform, buildSchema())
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
    platform,
    app,
    database: own,
    logged,
    statements,
    fetch,
    post,
    run: (document, variables, as = {}) => post({ query: String(document), variables }, as),
    graphql: (query, variables = {}, as = {}) => post({ query, variables }, as),
    async close() {
      await app.close()
      if (!database) await own.drop()
    },
  }
}
