import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { catalogueFile } from './catalogue.ts'

const flag = z.enum(['on', 'off'])
const cidrList = z
  .string()
  .default('')
  .transform((text) => text.split(/[\s,]+/).filter(Boolean))
  .pipe(z.array(z.union([z.cidrv4(), z.cidrv6()])))
const seconds = (fallback: number, max: number) => z.coerce.number().int().min(1).max(max).default(fallback)
const urlOf = (protocol: RegExp, ...named: string[]) =>
  z.url({ protocol, error: `a ${named.join(':// or ')}:// address` })
const httpUrl = urlOf(/^https?$/, 'http', 'https')
const postgresUrl = urlOf(/^postgres(?:ql|)$/, 'postgres', 'postgresql')
const count = (fallback: number, max: number) => z.coerce.number().int().min(0).max(max).default(fallback)
const key = z
  .base64({ error: '32 bytes in base64, e.g. from `openssl rand -base64 32`' })
  .refine((text) => Buffer.from(text, 'base64').length === 32, {
    error: 'exactly 32 bytes in base64',
  })

/** `{"public_keys": [{"key_identifier": "…", "key": "-----BEGIN PUBLIC KEY-----…"}]}`, or that array alone. */
const leakReportKeys = z.string().transform((given, context) => {
  const list = z.array(z.object({ key_identifier: z.string().min(1), key: z.string().includes('PUBLIC KEY') })).min(1)
  const either = z.union([list, z.object({ public_keys: list }).transform(({ public_keys }) => public_keys)])
  try {
    const text = /^\s*[[{]/.test(given) ? given : readFileSync(given, 'utf8')
    return either.parse(JSON.parse(text)).map(({ key_identifier, key }) => ({ identifier: key_identifier, key }))
  } catch {
    context.addIssue({ code: 'custom', message: 'expected public keys as JSON, or a readable file that holds them' })
    return z.NEVER
  }
})

/** `name=value` pairs with commas between them, percent-encoded (OpenTelemetry's `OTEL_EXPORTER_OTLP_HEADERS`). */
const headerList = z.string().transform((given, context) => {
  try {
    const pairs = given.split(',').filter((pair) => pair.trim())
    return Object.fromEntries(
      pairs.map((pair) => {
        const [, name = '', value = ''] = /^\s*([!#$%&'*+\-.^_`|~\w]+)\s*=\s*(.*?)\s*$/.exec(pair) ?? []
        if (!name) throw new Error('no name')
        return [name.toLowerCase(), decodeURIComponent(value)]
      }),
    )
  } catch {
    context.addIssue({ code: 'custom', message: 'expected name=value pairs with commas between them' })
    return z.NEVER
  }
})

/** Every setting, with its default and its meaning; the README's table is printed from here. */
export const settings = z.object({
  HOST: z.string().min(1).default('127.0.0.1').describe('Address to listen on.'),
  PORT: z.coerce.number().int().min(0).max(65_535).default(4000).describe('Port to listen on; 0 takes a free one.'),
  PUBLIC_URL: httpUrl
    .optional()
    .describe('Address that callers use; issuer and audience of tokens. Default: `http://HOST:PORT`.'),
  DATA_DIR: z
    .string()
    .min(1)
    .default('.data')
    .describe('Folder of the embedded database, its master key and written mail.'),
  DATABASE_URL: postgresUrl
    .optional()
    .describe('PostgreSQL 15 or newer, as a role that owns the tables. Default: the embedded database.'),
  DATABASE_APP_URL: postgresUrl
    .optional()
    .describe('Login that is a member of `mcp_app`, where the owner may not create roles.'),
  DATABASE_SYSTEM_URL: postgresUrl
    .optional()
    .describe('Login that is a member of `mcp_system`, where the owner may not create roles.'),
  DATABASE_POOL_SIZE: z.coerce
    .number()
    .int()
    .min(1)
    .max(200)
    .default(10)
    .describe('Connections of each database role.'),
  REDIS_URL: urlOf(/^rediss?$/, 'redis', 'rediss')
    .optional()
    .describe('Shared counters for several instances. Default: the database.'),
  REDIS_KEY_PREFIX: z
    .string()
    .regex(/^[\w:.-]{0,64}$/)
    .default('mcp:')
    .describe('Start of every key in Redis; platforms that share one need different ones.'),
  SMTP_URL: urlOf(/^smtps?$/, 'smtp', 'smtps')
    .optional()
    .describe('Mail relay. Default: mail is written to `DATA_DIR/mail`.'),
  MAIL_FROM: z
    .string()
    .regex(/^[^\r\n]{3,200}$/)
    .optional()
    .describe(
      'Sender of mail, e.g. `MCP Platform <no-reply@example.com>`. Default: `no-reply@` the host of PUBLIC_URL.',
    ),
  EMAIL_VERIFICATION: flag
    .optional()
    .describe('Whether an account must prove its address before it signs in. Default: `on` where SMTP_URL is set.'),
  FRONTEND_URL: httpUrl
    .optional()
    .describe(
      'Your frontend; mails link to its /reset-password, /verify-email and /accept-invitation with `#token=…`. Default: mails carry the token alone.',
    ),
  SIGNING_KEY_ROTATION_DAYS: z.coerce
    .number()
    .int()
    .min(1)
    .max(365)
    .default(30)
    .describe('Age at which the key that signs access tokens is followed by a new one.'),
  MASTER_KEY: key
    .optional()
    .describe('Key-encryption key: 32 bytes in base64. Default: `DATA_DIR/master.key`, made on first start.'),
  MASTER_KEY_FILE: z.string().min(1).optional().describe('File that holds the master key, e.g. a mounted secret.'),
  UPSTREAM_ALLOWED_CIDRS: cidrList.describe(
    'Private networks that upstream MCP servers may live in, e.g. `10.0.0.0/8`.',
  ),
  CATALOGUE_FILE: catalogueFile
    .optional()
    .describe('JSON file that names the MCP servers which organisations may have run as processes. Default: none.'),
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
  SIGN_IN_FAILURES_PER_SOURCE_AND_ACCOUNT: count(10, 1000)
    .refine((n) => n > 0)
    .describe('Failed sign-ins to one account from one address before growing locks begin.'),
  SIGN_IN_FAILURES_PER_SOURCE: count(100, 100_000)
    .refine((n) => n > 0)
    .describe('Failed sign-ins to any account from one address before growing locks begin.'),
  SIGN_IN_FAILURES_PER_ACCOUNT: count(100, 100_000)
    .refine((n) => n > 0)
    .describe(
      'Failed sign-ins to one account from anywhere; afterwards only addresses that its owner used before are not slowed.',
    ),
  API_KEY_FAILURES_PER_SOURCE: count(20, 100_000)
    .refine((n) => n > 0)
    .describe('Different bad API keys from one address before growing locks begin.'),
  FIRST_LOCK_SECONDS: seconds(30, 3600).describe('Length of a first lock; each further failure doubles it.'),
  LONGEST_LOCK_SECONDS: seconds(900, 86_400).describe('Length that no lock exceeds.'),
  SIGN_UPS_PER_SOURCE_PER_HOUR: count(100, 1_000_000).describe('New accounts from one address. 0: no limit.'),
  ANONYMOUS_REQUESTS_PER_SOURCE_PER_MINUTE: count(6000, 10_000_000).describe(
    'Requests without a good credential from one address (for IPv6, one /64). 0: no limit.',
  ),
  COST_PER_CREDENTIAL_PER_MINUTE: count(300_000, 1_000_000_000).describe(
    'Cost of all operations of one session or API key. 0: no limit.',
  ),
  COST_PER_USER_PER_MINUTE: count(600_000, 1_000_000_000).describe('Cost of all operations of one user. 0: no limit.'),
  COST_PER_ORGANIZATION_PER_MINUTE: count(6_000_000, 1_000_000_000).describe(
    'Cost of all operations of one organisation. 0: no limit.',
  ),
  OAUTH_CLIENT_NAME: z
    .string()
    .regex(/^[^\p{Cc}]{1,100}$/u)
    .default('MCP Online Platform')
    .describe('What users read on the consent pages of upstream authorization servers.'),
  OAUTH_AUTHORIZATION_SECONDS: seconds(600, 3600).describe('How long a user may take to connect an account.'),
  OAUTH_TIMEOUT_SECONDS: seconds(10, 60).describe('Longest wait for one answer of an upstream authorization server.'),
  OAUTH_ATTEMPTS_PER_USER_PER_HOUR: count(60, 100_000).describe(
    'Connections that one user may begin in an hour. 0: no limit.',
  ),
  CALLS_PER_SERVICE_PER_MINUTE: count(60_000, 10_000_000).describe(
    'Calls of one MCP service by everybody. 0: no limit.',
  ),
  CONCURRENT_CALLS_PER_CREDENTIAL: count(64, 10_000).describe(
    'MCP calls of one session or API key at a time, on one instance. 0: no limit.',
  ),
  CONCURRENT_CALLS_PER_USER: count(128, 10_000).describe(
    'MCP calls of one user at a time, on one instance. 0: no limit.',
  ),
  CONCURRENT_CALLS_PER_SERVICE: count(256, 10_000).describe(
    'Calls of one MCP service at a time, on one instance. 0: no limit.',
  ),
  CONCURRENT_CALLS_PER_ORGANIZATION: count(512, 100_000).describe(
    'MCP calls of one organisation at a time, on one instance. 0: no limit.',
  ),
  CONCURRENT_STREAMS_PER_CREDENTIAL: count(32, 10_000).describe(
    'Streams of changes that one session or API key holds open at a time, on one instance. 0: no limit.',
  ),
  LEAK_REPORT_KEYS: leakReportKeys
    .optional()
    .describe(
      'Public keys of those who may report leaked API keys at `/leak-reports`: JSON as GitHub publishes it, or a file that holds it. Default: no reports are taken.',
    ),
  BODY_LIMIT_BYTES: z.coerce
    .number()
    .int()
    .min(1024)
    .max(64 * 2 ** 20)
    .default(1_048_576)
    .describe('Largest request body.'),
  REQUEST_TIMEOUT_SECONDS: seconds(30, 600).describe('Longest run of one GraphQL request.'),
  UPSTREAM_TIMEOUT_SECONDS: seconds(60, 3600).describe('Longest wait for an upstream MCP server.'),
  MAX_REQUESTS_IN_FLIGHT: z.coerce
    .number()
    .int()
    .min(10)
    .max(100_000)
    .default(500)
    .describe(
      'Requests that one process works on at once; what comes beyond is told to come back (503). An MCP call counts until it waits for its upstream.',
    ),
  MAX_EVENT_LOOP_DELAY_MS: z.coerce
    .number()
    .int()
    .min(10)
    .max(60_000)
    .default(1000)
    .describe(
      'Mean delay of the event loop from which on new requests are told to come back while others are in work.',
    ),
  METRICS_PORT: z.coerce
    .number()
    .int()
    .min(0)
    .max(65_535)
    .optional()
    .describe('Port of Prometheus metrics at /metrics; 0 takes a free one. Default: no metrics.'),
  METRICS_HOST: z
    .string()
    .min(1)
    .default('127.0.0.1')
    .describe('Address that the metrics are served on. They ask for no credential: keep it private.'),
  OTEL_EXPORTER_OTLP_ENDPOINT: httpUrl
    .optional()
    .describe(
      'OpenTelemetry collector, e.g. `http://localhost:4318`; traces go to its /v1/traces. Default: no traces.',
    ),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: httpUrl
    .optional()
    .describe('Where traces go, as a whole address, in the place of that.'),
  OTEL_EXPORTER_OTLP_HEADERS: headerList
    .optional()
    .describe('Headers that the collector asks for: `name=value`, with commas between them, percent-encoded.'),
  OTEL_SERVICE_NAME: z.string().min(1).max(200).default('mcp-platform').describe('Name under which traces appear.'),
  OTEL_TRACES_SAMPLER: z
    .enum([
      'always_on',
      'always_off',
      'traceidratio',
      'parentbased_always_on',
      'parentbased_always_off',
      'parentbased_traceidratio',
    ])
    .default('parentbased_always_on')
    .describe('Which requests are traced.'),
  OTEL_TRACES_SAMPLER_ARG: z.coerce
    .number()
    .min(0)
    .max(1)
    .default(1)
    .describe('Share of requests that are traced, for the samplers of a ratio.'),
  SHUTDOWN_TIMEOUT_SECONDS: seconds(25, 600).describe('How long a graceful stop waits for running requests.'),
})

type Settings = z.output<typeof settings>

function tracesOf(s: Settings) {
  const base = s.OTEL_EXPORTER_OTLP_ENDPOINT?.replace(/\/+$/, '')
  const endpoint = s.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT ?? (base === undefined ? undefined : `${base}/v1/traces`)
  if (endpoint === undefined) return null
  return {
    endpoint,
    headers: s.OTEL_EXPORTER_OTLP_HEADERS ?? {},
    serviceName: s.OTEL_SERVICE_NAME,
    sampler: s.OTEL_TRACES_SAMPLER,
    samplerArgument: s.OTEL_TRACES_SAMPLER_ARG,
  }
}

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
    mailFrom: s.MAIL_FROM,
    emailVerification: s.EMAIL_VERIFICATION ? s.EMAIL_VERIFICATION === 'on' : s.SMTP_URL !== undefined,
    frontendUrl: s.FRONTEND_URL?.replace(/\/+$/, ''),
    signingKeyRotationDays: s.SIGNING_KEY_ROTATION_DAYS,
    masterKey: s.MASTER_KEY ?? (s.MASTER_KEY_FILE ? readFileSync(s.MASTER_KEY_FILE, 'utf8').trim() : undefined),
    upstreamAllowedCidrs: s.UPSTREAM_ALLOWED_CIDRS,
    catalogue: s.CATALOGUE_FILE ?? null,
    trustedProxies: s.TRUSTED_PROXIES,
    demo: s.DEMO,
    clientApiKey: s.MCP_API_KEY,
    logLevel: s.LOG_LEVEL,
    accessTokenTtlSeconds: s.ACCESS_TOKEN_TTL_SECONDS,
    bcryptCost: s.BCRYPT_COST,
    redisKeyPrefix: s.REDIS_KEY_PREFIX,
    signInFailuresPerSourceAndAccount: s.SIGN_IN_FAILURES_PER_SOURCE_AND_ACCOUNT,
    signInFailuresPerSource: s.SIGN_IN_FAILURES_PER_SOURCE,
    signInFailuresPerAccount: s.SIGN_IN_FAILURES_PER_ACCOUNT,
    apiKeyFailuresPerSource: s.API_KEY_FAILURES_PER_SOURCE,
    firstLockSeconds: s.FIRST_LOCK_SECONDS,
    longestLockSeconds: s.LONGEST_LOCK_SECONDS,
    signUpsPerSourcePerHour: s.SIGN_UPS_PER_SOURCE_PER_HOUR,
    anonymousRequestsPerSourcePerMinute: s.ANONYMOUS_REQUESTS_PER_SOURCE_PER_MINUTE,
    costPerCredentialPerMinute: s.COST_PER_CREDENTIAL_PER_MINUTE,
    costPerUserPerMinute: s.COST_PER_USER_PER_MINUTE,
    costPerOrganizationPerMinute: s.COST_PER_ORGANIZATION_PER_MINUTE,
    oauthClientName: s.OAUTH_CLIENT_NAME,
    oauthAuthorizationSeconds: s.OAUTH_AUTHORIZATION_SECONDS,
    oauthTimeoutSeconds: s.OAUTH_TIMEOUT_SECONDS,
    oauthAttemptsPerUserPerHour: s.OAUTH_ATTEMPTS_PER_USER_PER_HOUR,
    callsPerServicePerMinute: s.CALLS_PER_SERVICE_PER_MINUTE,
    concurrentCallsPerCredential: s.CONCURRENT_CALLS_PER_CREDENTIAL,
    concurrentCallsPerUser: s.CONCURRENT_CALLS_PER_USER,
    concurrentCallsPerService: s.CONCURRENT_CALLS_PER_SERVICE,
    concurrentCallsPerOrganization: s.CONCURRENT_CALLS_PER_ORGANIZATION,
    concurrentStreamsPerCredential: s.CONCURRENT_STREAMS_PER_CREDENTIAL,
    leakReportKeys: s.LEAK_REPORT_KEYS ?? null,
    bodyLimitBytes: s.BODY_LIMIT_BYTES,
    requestTimeoutSeconds: s.REQUEST_TIMEOUT_SECONDS,
    upstreamTimeoutSeconds: s.UPSTREAM_TIMEOUT_SECONDS,
    maxRequestsInFlight: s.MAX_REQUESTS_IN_FLIGHT,
    maxEventLoopDelayMs: s.MAX_EVENT_LOOP_DELAY_MS,
    metricsPort: s.METRICS_PORT,
    metricsHost: s.METRICS_HOST,
    traces: tracesOf(s),
    shutdownTimeoutSeconds: s.SHUTDOWN_TIMEOUT_SECONDS,
  }
}

/** Parsed once, at start; fails with every problem listed. */
export const loadConfig = (environment: Record<string, string | undefined> = process.env): Config => parse(environment)
