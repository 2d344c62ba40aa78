import { createHash } from 'node:crypto'

/** Pushes a manifest: the one document that a key can run before any was registered, given that it holds `mcp:write`. */
export const pushDocument =
  'mutation PushOperations($operations: [RegisterPersistedOperationsInputOperations!]!) { registerPersistedOperations(input: { operations: $operations }) { operations { sha256 name requiredScopes cost } } }'

export const pushDocumentId = createHash('sha256').update(pushDocument).digest('hex')

/** Documents that every organisation has, by hash. */
export const builtIn: ReadonlyMap<string, { document: string; kind: string; requiredScopes: readonly string[] }> =
  new Map([[pushDocumentId, { document: pushDocument, kind: 'mutation', requiredScopes: ['mcp:write', 'mcp:read'] }]])
