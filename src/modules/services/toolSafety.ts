import { z } from 'zod'
import { AppError, badInput } from '../../kernel/errors.ts'
import { nodeId } from '../../kernel/nodeId.ts'
import { operation } from '../../kernel/operation.ts'
import { allOf, scope, stepUp } from '../../kernel/rule.ts'
import { actingMember } from './operations.ts'

/** What an organisation asks of its MCP traffic beyond the rules that always hold. */
export const updateMcpSettings = operation({
  name: 'updateMcpSettings',
  requires: allOf(scope('mcp:admin', 'org:write'), stepUp),
  input: z.strictObject({
    blockSecrets: z
      .boolean()
      .optional()
      .describe('Calls and answers that hold a credential are refused; otherwise it is only kept out of the records.'),
    hideChangedTools: z
      .boolean()
      .optional()
      .describe('A tool that is new at a service, or says something else of itself, is there once it is accepted.'),
  }),
  run: async ({ tx, actor }, { blockSecrets, hideChangedTools }) => {
    const { orgId } = actingMember(actor)
    const values = {
      ...(blockSecrets === undefined ? {} : { blockSecrets }),
      ...(hideChangedTools === undefined ? {} : { hideChangedTools }),
    }
    if (Object.keys(values).length === 0)
      throw badInput([{ path: [], message: 'expected at least one value to change' }])
    return tx.organization.update({ where: { id: orgId }, data: values, select: { id: true } })
  },
  audit: ({ id }, { blockSecrets, hideChangedTools }) => ({
    action: 'mcpSettings.updated',
    target: id,
    detail: JSON.parse(JSON.stringify({ blockSecrets, hideChangedTools })) as Record<string, boolean>,
  }),
})

/** Takes what a tool says now for what it is to say. The hash is that of the text that the administrator has read. */
export const acceptToolChange = operation({
  name: 'acceptToolChange',
  requires: allOf(scope('mcp:admin'), stepUp),
  input: z.strictObject({
    serviceId: nodeId('Service'),
    tool: z.string().min(1).max(500),
    hash: z.string().regex(/^[0-9a-f]{64}$/, 'expected the hash of a change'),
  }),
  target: {
    noun: 'change',
    find: (tx, { serviceId, tool }, { actor }) =>
      tx.toolPin.findFirst({
        where: { serviceId, tool, orgId: actingMember(actor).orgId, pendingHash: { not: null } },
        select: { id: true, pendingHash: true, pendingDescription: true },
      }),
  },
  run: async ({ tx, row }, { serviceId, hash }) => {
    if (!row || row.pendingHash !== hash)
      throw new AppError('CONFLICT', 'The tool says something else by now. Look at the change again.')
    await tx.toolPin.update({
      where: { id: row.id },
      data: {
        acceptedHash: hash,
        acceptedDescription: row.pendingDescription,
        pendingHash: null,
        pendingDescription: null,
      },
      select: { id: true },
    })
    await tx.$executeRaw`UPDATE services SET pins_version = pins_version + 1 WHERE id = ${serviceId}::uuid`
    return { id: serviceId }
  },
  audit: ({ id }, { tool, hash }) => ({ action: 'tool.changeAccepted', target: id, detail: { tool, hash } }),
})
