import { describe, expect, it } from 'vitest'
import { mayUse, toolAccess } from '../../src/modules/services/toolPolicy.ts'

describe('the access of a tool', () => {
  it('is WRITE when nothing else is known', () => {
    expect(toolAccess({ trusted: true })).toBe('WRITE')
    expect(toolAccess({ trusted: true, annotations: {} })).toBe('WRITE')
    expect(toolAccess({ trusted: true, annotations: { readOnlyHint: false } })).toBe('WRITE')
  })

  it('is READ by the service’s own word only if the service is trusted', () => {
    expect(toolAccess({ trusted: false, annotations: { readOnlyHint: true } })).toBe('WRITE')
    expect(toolAccess({ trusted: true, annotations: { readOnlyHint: true } })).toBe('READ')
  })

  it.each(['READ', 'WRITE', 'BLOCKED'] as const)(
    'is %s when an admin says so, whatever the service says',
    (setting) => {
      for (const trusted of [true, false])
        for (const readOnlyHint of [true, false])
          expect(toolAccess({ setting, trusted, annotations: { readOnlyHint } })).toBe(setting)
    },
  )
})

describe('the permission to use a tool', () => {
  it('needs exactly the scope of its access', () => {
    expect(mayUse([], 'READ')).toBe(false)
    expect(mayUse(['mcp:write'], 'READ')).toBe(false)
    expect(mayUse(['mcp:read'], 'READ')).toBe(true)
    expect(mayUse(['mcp:read'], 'WRITE')).toBe(false)
    expect(mayUse(['mcp:write'], 'WRITE')).toBe(true)
  })

  it('is nobody’s for a blocked tool', () => {
    expect(mayUse(['mcp:read', 'mcp:write', 'mcp:admin'], 'BLOCKED')).toBe(false)
  })
})
