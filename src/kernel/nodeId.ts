import { z } from 'zod'

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** The public id of a row: its type and its UUID, opaque to callers (Relay, Global Object Identification). */
export const encodeNodeId = (type: string, id: string): string => Buffer.from(`${type}:${id}`).toString('base64url')

/** Null for anything that this API did not give. */
export function decodeNodeId(text: string): { type: string; id: string } | null {
  if (text.length > 200 || !/^[\w-]+$/.test(text)) return null
  const [type, id, ...rest] = Buffer.from(text, 'base64url').toString().split(':')
  return type && id && rest.length === 0 && uuid.test(id) && /^[A-Z]\w*$/.test(type) ? { type, id } : null
}

/** An id of one type as input: what this API gave, or the bare UUID. Parsed to the UUID. */
export const nodeId = (type: string) =>
  z
    .string()
    .max(200)
    .transform((text, context) => {
      if (uuid.test(text)) return text
      const decoded = decodeNodeId(text)
      if (decoded?.type === type) return decoded.id
      context.addIssue({ code: 'custom', message: `expected the id of a ${type}` })
      return z.NEVER
    })
    .meta({ graphql: 'ID' })
