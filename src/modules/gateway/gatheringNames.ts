import type { Json } from './types.ts'

/**
 * How the names of many services stand side by side: always prefixed, so that none changes when a service is added. A
 * service's slug has no underscore, no plus and no dot, so the first separator ends it and no name can pretend to be another
 * service's.
 */
const slug = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const name = new RegExp(`^(${slug})__([\\s\\S]+)$`)
// A scheme of its own for each service: resources of two of them may have the same URI.
const uri = new RegExp(`^mcp\\.(${slug})\\+([\\s\\S]+)$`)

export type Qualified = { slug: string; rest: string }

const parts = (pattern: RegExp, text: string): Qualified | undefined => {
  const [, slug, rest] = pattern.exec(text) ?? []
  return slug !== undefined && rest !== undefined ? { slug, rest } : undefined
}

/** `search__find` for the tool or prompt `find` of the service `search`. */
export const qualifiedName = (service: string, own: string): string => `${service}__${own}`
export const splitName = (text: string): Qualified | undefined => parts(name, text)

/** `mcp.search+file:///a` for the resource `file:///a` of the service `search`. */
export const qualifiedUri = (service: string, own: string): string => `mcp.${service}+${own}`
export const splitUri = (text: string): Qualified | undefined => parts(uri, text)

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)

const withUri = (service: string, value: unknown): unknown =>
  isObject(value) && typeof value['uri'] === 'string' ? { ...value, uri: qualifiedUri(service, value['uri']) } : value

/** A content block whose resource, if it names one, can be read at the gathering. */
function block(service: string, value: unknown): unknown {
  if (!isObject(value)) return value
  if (value['type'] === 'resource_link') return withUri(service, value)
  if (value['type'] === 'resource') return { ...value, resource: withUri(service, value['resource']) }
  return value
}

const each = (value: unknown, change: (item: unknown) => unknown): unknown =>
  Array.isArray(value) ? value.map(change) : value

/** The answer of one service with its URIs as the gathering names them. */
export function qualifiedResult(service: string, method: string, result: Json): Json {
  if (method === 'tools/call' && 'content' in result)
    return { ...result, content: each(result['content'], (item) => block(service, item)) }
  if (method === 'resources/read' && 'contents' in result)
    return { ...result, contents: each(result['contents'], (item) => withUri(service, item)) }
  if (method === 'prompts/get' && 'messages' in result)
    return {
      ...result,
      messages: each(result['messages'], (message) =>
        isObject(message) ? { ...message, content: block(service, message['content']) } : message,
      ),
    }
  return result
}
