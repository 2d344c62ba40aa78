import { readFileSync } from 'node:fs'
import { z } from 'zod'

const flag = z.enum(['on', 'off'])
const cidrList = z
  .string()
  .default('')
  .transform((text) => text.split(/[\s,]+/).filter(Boolean))
  .pipe(z.array(z.union([z.cidrv4(), z.cidrv6()])))
const seconds = (fallback: number, max: number) => z.coerce.number().int().min(1).max(max).default(fallback)
const urlOf = (...protocols: string[]) =>
  z.url({ protocol: new RegExp(`^(${protocols.join('|')})$`), error: `a ${protocols.join(':// or ')}:// address` })
const key = z
  .base64({ error: '32 bytes in base64, e.g. from `openssl rand -base64 32`' })
  .refine((text) => Buffer.from(text, 'base64').length === 32, {
    error: 'exactly 32 bytes in base64',
  })

/** Every setting, with its default and its meaning; the README's table is printed from here. */
export const settings = z.object({
  HOST: z.string().min(1).default('127.0.0.1').describe('Address to listen on.'),
  PORT: z.coerce.number().int().min(0).max(65_535).default(4000).describe('Port to listen on; 0 takes a free one.'),
  PUBLIC_URL: urlOf('http', 'https')
    .optional()
    .describe('Address that callers use; issuer and audience of tokens. Default: `http://HOST:PORT`.'),
  DATA_DIR: z
    .string()
    .min(1)
    .default('.data')
    .describe('Folder of the embedded database, its master key and written mail.'),
  DATABASE_URL: urlOf('postgres', 'postgresql')
    .optional()
    .describe('PostgreSQL 15 or newer, as a role that owns the tables. Default: the embedded database.'),
  DATABASE_APP_URL: urlOf('postgres', 'postgresql')
    .optional()
    .describe('Login that is a member of `mcp_app`, where the owner may not create roles.'),
  DATABASE_SYSTEM_URL: urlOf('postgres', 'postgresql')
    .optional()
    .describe('Login that is a member of `mcp_system`, where the owner may not create roles.'),
  DATABASE_POOL_SIZE: z.coerce
    .number()
    .int()
    .min(1)
    .max(200)
    .default(10)
    .describe('Connections of each database role.'),
  REDIS_URL: urlOf('redis', 'rediss')
    .optional()
    .describe('Shared counters for several instances. Default: the database.'),
  SMTP_URL: urlOf('smtp', 'smtps').optional().describe('Mail relay. Default: mail is written to `DATA_DIR/mail`.'),
  MASTER_KEY: key
    .optional()
    .describe('Key-encryption key: 32 bytes in base64. Default: `DATA_DIR/master.key`, made on first start.'),
  MASTER_KEY_FILE: z.string().min(1).optional().describe('File that holds the master key, e.g. a mounted secret.'),
  UPSTREAM_ALLOWED_CIDRS: cidrList.describe(
    'Private networks that upstream MCP servers may live in, e.g. `10.0.0.0/8`.',
  ),
  TRUSTED_PROXIES: cidrList.describe('Networks whose `X-Forwarded-For` is believed.'),
  DEMO: flag
    .optional()
    .describe('Demo organisation and service on an empty embedded database. Default: `on` there, never elsewhere.'),
  MCP_API_KEY: z
    .string()
    .optional()
    .describe('Key that `mcp-platform call` and `operations push` send; the server does not read it.'),
  LOG_LEVEL: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
    .default('info')
    .describe('Least level that is logged.'),
  ACCESS_TOKEN_TTL_SECONDS: seconds(900, 86_400).describe('Life of an access token; 24 hours at the most.'),
  BCRYPT_COST: z.coerce
    .number()
    .int()
    .min(10)
    .max(15)
    .default(12)
    .describe('Work factor of password and key hashes (log2 of rounds).'),
  BODY_LIMIT_BYTES: z.coerce
    .number()
    .int()
    .min(1024)
    .max(64 * 2 ** 20)
    .default(1_048_576)
    .describe('Largest request body.'),
  REQUEST_TIMEOUT_SECONDS: seconds(30, 600).describe('Longest run of one GraphQL request.'),
  UPSTREAM_TIMEOUT_SECONDS: seconds(60, 3600).describe('Longest wait for an upstream MCP server.'),
  SHUTDOWN_TIMEOUT_SECONDS: seconds(25, 600).describe('How long a graceful stop waits for running requests.'),
})

export type Config = Readonly<ReturnType<typeof parse>>

export class ConfigError extends Error {
  override readonly name = 'ConfigError'
}

function parse(environment: Record<string, string | undefined>) {
  const present = Object.fromEntries(
    Object.entries(environment).filter(([, value]) => value !== undefined && value !== ''),
  )
  const parsed = settings.safeParse(present)
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `  ${issue.path.join('.')}: ${issue.message}`)
    throw new ConfigError(`The configuration has ${problems.length} problem(s):\n${problems.join('\n')}`)
  }
  const s = parsed.data
  return {
    host: s.HOST,
    port: s.PORT,
    publicUrl: s.PUBLIC_URL?.replace(/\/+$/, ''),
    dataDirectory: s.DATA_DIR,
    databaseUrl: s.DATABASE_URL,
    databaseAppUrl: s.DATABASE_APP_URL,
    databaseSystemUrl: s.DATABASE_SYSTEM_URL,
    databasePoolSize: s.DATABASE_POOL_SIZE,
    redisUrl: s.REDIS_URL,
    smtpUrl: s.SMTP_URL,
    masterKey: s.MASTER_KEY ?? (s.MASTER_KEY_FILE ? readFileSync(s.MASTER_KEY_FILE, 'utf8').trim() : undefined),
    upstreamAllowedCidrs: s.UPSTREAM_ALLOWED_CIDRS,
    trustedProxies: s.TRUSTED_PROXIES,
    demo: s.DEMO,
    clientApiKey: s.MCP_API_KEY,
    logLevel: s.LOG_LEVEL,
    accessTokenTtlSeconds: s.ACCESS_TOKEN_TTL_SECONDS,
    bcryptCost: s.BCRYPT_COST,
    bodyLimitBytes: s.BODY_LIMIT_BYTES,
    requestTimeoutSeconds: s.REQUEST_TIMEOUT_SECONDS,
    upstreamTimeoutSeconds: s.UPSTREAM_TIMEOUT_SECONDS,
    shutdownTimeoutSeconds: s.SHUTDOWN_TIMEOUT_SECONDS,
  }
}

/** Parsed once, at start; fails with every problem listed. */
export const loadConfig = (environment: Record<string, string | undefined> = process.env): Config => parse(environment)
