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
  const source = nameSource[method]
  const name = source === undefined ? undefined : params[source]
  return {
    'mcp-method': method,
    ...(typeof name === 'string' ? { 'mcp-name': encode(name) } : {}),
    ...(inputSchema === undefined ? {} : Object.fromEntries(paramHeaders(inputSchema, params['arguments']))),
  }
}

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

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
