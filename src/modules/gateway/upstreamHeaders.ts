import type { Json } from './types.ts'

/** Which member of the parameters the `Mcp-Name` header repeats (2026-07-28, Streamable HTTP, standard headers). */
const nameSource: Readonly<Record<string, string>> = {
  'tools/call': 'name',
  'prompts/get': 'name',
  'resources/read': 'uri',
}

const plain = /^[\x20-\x7e\t]+$/

/** A header value as it is, or in the `=?base64?…?=` form that the specification has for all others. */
const encode = (value: string): string =>
  plain.test(value) && value === value.trim() && !/^=\?base64\?.*\?=$/s.test(value)
    ? value
    : `=?base64?${Buffer.from(value, 'utf8').toString('base64')}?=`

/** The headers that repeat parts of a 2026-07-28 request, so that a proxy can route it unread. */
export function standardHeaders(method: string, params: Json, inputSchema?: unknown): Record<string, string> {
  const source = Object.hasOwn(nameSource, method) ? nameSource[method] : undefined
  const name = source === undefined ? undefined : params[source]
  return {
    'mcp-method': method,
    ...(typeof name === 'string' ? { 'mcp-name': encode(name) } : {}),
    ...(inputSchema === undefined ? {} : Object.fromEntries(paramHeaders(inputSchema, params['arguments']))),
  }
}

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

/** `undefined` for a value that claims to be encoded and is not. */
function decode(value: string): string | undefined {
  const encoded = /^=\?base64\?(.*)\?=$/s.exec(value)?.[1]
  if (encoded === undefined) return value
  const bytes = Buffer.from(encoded, 'base64')
  return bytes.toString('base64') === encoded ? bytes.toString('utf8') : undefined
}

/** The first argument that a request's headers do not repeat as the tool's schema demands, or `undefined`. */
export function mismatchedHeader(inputSchema: unknown, args: unknown, headers: Headers): string | undefined {
  for (const [name, expected] of paramHeaders(inputSchema, args)) {
    const given = headers.get(name)
    const said = given === null ? undefined : decode(given)
    const meant = decode(expected)
    const sameNumber = said !== undefined && /^-?\d+(?:|\.\d+)$/.test(said) && Number(said) === Number(meant)
    if (said === undefined || (said !== meant && !sameNumber)) return name
  }
  return undefined
}

/** Arguments that the tool's schema marks with `x-mcp-header` (SEP-2243), wherever plain `properties` lead to them. */
function* paramHeaders(schema: unknown, value: unknown): Generator<[string, string]> {
  if (!isObject(schema) || !isObject(schema['properties']) || !isObject(value)) return
  for (const [key, property] of Object.entries(schema['properties'])) {
    if (!isObject(property) || !Object.hasOwn(value, key)) continue
    const header = property['x-mcp-header']
    const argument = value[key]
    if (typeof header === 'string' && token.test(header)) {
      if (typeof argument === 'string' || typeof argument === 'boolean' || Number.isFinite(argument))
        yield [`mcp-param-${header.toLowerCase()}`, encode(String(argument))]
    } else yield* paramHeaders(property, argument)
  }
}
