import { crc32 } from 'node:zlib'
import type { Person } from '../harness/seed.ts'
import type { Answer, Credential, World } from '../harness/world.ts'

export type Key = { id: string; secret: string }

/** A world whose tests say where a request comes from. */
export const behindProxy = { TRUSTED_PROXIES: '192.0.2.1/32' }

/** A credential, and the address that it is sent from. */
export const from = (ip: string, as: Credential = {}): Credential => ({ ...as, 'x-forwarded-for': ip }) as Credential

const made = async (world: World, as: Credential, name: string, input: object): Promise<Answer<any>> =>
  world.graphql(
    `mutation ($input: ${name[0]?.toUpperCase()}${name.slice(1)}Input!) { ${name}(input: $input) { apiKey { id } secret } }`,
    { input },
    as,
  )

const keyOf = ({ data, errors }: Answer<any>, name: string): Key => {
  if (!data?.[name]) throw new Error(`no key: ${JSON.stringify(errors)}`)
  return { id: data[name].apiKey.id, secret: data[name].secret }
}

export const tryToMake = (world: World, as: Credential, input: object): Promise<Answer<any>> =>
  made(world, as, 'createApiKey', { name: 'test', scopes: ['mcp:read'], ...input })
export const makeKey = async (world: World, as: Credential, input: object = {}): Promise<Key> =>
  keyOf(await tryToMake(world, as, input), 'createApiKey')

export const tryToRotate = (world: World, as: Credential, input: object): Promise<Answer<any>> =>
  made(world, as, 'rotateApiKey', input)
export const rotateKey = async (world: World, as: Credential, input: object): Promise<Key> =>
  keyOf(await tryToRotate(world, as, input), 'rotateApiKey')

export const revokeKey = (world: World, as: Credential, input: object): Promise<Answer<any>> =>
  world.graphql(
    'mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { id revokedReason } }',
    { input },
    as,
  )

/** Registers a document for the organisation; answers how a key calls it. */
export async function register(world: World, as: Person, document: string): Promise<string> {
  const { data, errors } = await world.graphql<any>(
    'mutation ($input: RegisterPersistedOperationInput!) { registerPersistedOperation(input: $input) { sha256 } }',
    { input: { document } },
    as,
  )
  if (!data?.registerPersistedOperation) throw new Error(JSON.stringify(errors))
  return data.registerPersistedOperation.sha256
}

export const call = (world: World, documentId: string, secret: string, ip = '198.51.100.7', variables = {}) =>
  world.post<any>({ documentId, variables }, from(ip, { authorization: `Bearer ${secret}` }))

/** What the organisation's trail says of an action, newest last. */
export const trail = (world: World, action: string) =>
  world.platform.database.read(
    { kind: 'system', origin: { ip: null, userAgent: null, requestId: 'test' }, permissions: 0, scopes: [] },
    (tx) => tx.auditEvent.findMany({ where: { action }, orderBy: { sequence: 'asc' } }),
  )

// eslint-disable-next-line no-secrets/no-secrets -- an alphabet
const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** The checksum as the README tells it to scanners: CRC-32 of all that stands before it, in base 62. */
export function checksumOf(body: string): string {
  let rest = crc32(body)
  const text = Array.from({ length: 6 }, () => {
    const digit = digits[rest % 62] ?? ''
    rest = Math.floor(rest / 62)
    return digit
  })
  return text.reverse().join('')
}

/** A whole key of the same public id whose secret is another one. */
export function withAnotherSecret(secret: string): string {
  const body = secret.slice(0, -49) + digits.slice(0, 43)
  return body + checksumOf(body)
}
