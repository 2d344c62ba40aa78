import type { Scope } from '../../kernel/permissions.ts'

/** What a call of a tool amounts to: reading, writing, or nothing that anybody may call. */
export type ToolAccess = 'READ' | 'WRITE' | 'BLOCKED'

type ToolFacts = {
  /** What an admin decided for this tool; it always wins. */
  setting?: ToolAccess | undefined
  /** Whether the organisation believes what this service says about its own tools. */
  trusted: boolean
  /** What the service says about the tool; a hint, from a party that may be hostile. */
  annotations?: { readOnlyHint?: boolean | undefined } | undefined
}

/** An admin's setting wins; else `readOnlyHint: true` means READ, but only from a trusted service; else WRITE. */
export function toolAccess({ setting, trusted, annotations }: ToolFacts): ToolAccess {
  if (setting !== undefined) return setting
  return trusted && annotations?.readOnlyHint === true ? 'READ' : 'WRITE'
}

const needs: Record<ToolAccess, Scope | null> = { READ: 'mcp:read', WRITE: 'mcp:write', BLOCKED: null }

/** The one decision behind a tool's place in a list and the permission to call it, at every door. */
export function mayUse(scopes: readonly Scope[], access: ToolAccess): boolean {
  const scope = needs[access]
  return scope !== null && scopes.includes(scope)
}
