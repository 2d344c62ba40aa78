// The platform's own schema and resolvers with the security taken out: no rule on any field, no row level security (the
// tables' owner reads), nobody verifies the token, no limit is counted. On Yoga with its defaults, as most would run it.
import { createServer } from 'node:http'
import SchemaBuilder from '@pothos/core'
import { PrismaPg } from '@prisma/adapter-pg'
import { createYoga } from 'graphql-yoga'
import pg from 'pg'
import { PrismaClient } from '../src/generated/prisma/client.ts'
import { scopes } from '../src/kernel/permissions.ts'
import '../src/graphql/rules.ts'

type Config = { pothosOptions: { authScopes?: unknown }; extensions: Record<string, unknown> }
type Plugin = { new (...given: any[]): { onOutputFieldConfig(config: Config): Config } }
const plugins = (SchemaBuilder as unknown as { default?: typeof SchemaBuilder }).default ?? SchemaBuilder
const registry = (plugins as unknown as { plugins: Record<string, Plugin> }).plugins
const Rules = registry['rules'] as Plugin
registry['rules'] = class extends Rules {
  override onOutputFieldConfig(config: Config): Config {
    const select = config.extensions?.['pothosPrismaSelect']
    const { pothosOptions, extensions, ...rest } = super.onOutputFieldConfig(config)
    const { authScopes: _, ...options } = pothosOptions
    return { ...rest, pothosOptions: options, extensions: { ...extensions, ...(select ? { pothosPrismaSelect: select } : {}) } } // prettier-ignore
  }
}
const { buildSchema } = await import('../src/schema.ts')

const { DATABASE_URL, PORT, POOL_SIZE } = process.env
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: Number(POOL_SIZE) })
// What the database door costs is what the bench measures, so here it is left out.
const tx = new PrismaClient({ adapter: new PrismaPg(pool) })

const actorOf = (request: Request): object => {
  const claims = JSON.parse(Buffer.from((request.headers.get('authorization') ?? '').split('.')[1] ?? '', 'base64url').toString()) as Record<string, string> // prettier-ignore
  return { kind: 'user', userId: claims['sub'], orgId: claims['org'], role: claims['role'], scopes, permissions: -1 }
}

const yoga = createYoga({
  schema: buildSchema(),
  graphiql: false,
  landingPage: false,
  logging: false,
  maskedErrors: false,
  context: ({ request }) => ({ tx, actor: actorOf(request) }),
})
createServer(yoga).listen(Number(PORT), '127.0.0.1')
