import { ProtocolError } from '@modelcontextprotocol/client'
import { AppError, badInput, type InputIssue } from '../../kernel/errors.ts'
import type { CallStatus } from './types.ts'
import { Cancelled } from './upstreamErrors.ts'

export const invalidParams = -32602
export const methodNotFound = -32601
export const internalError = -32603

/** A tool that does not exist and one that is not the caller's: the same words, the SDK's. */
export const unknownTool = (name: string): ProtocolError => new UnknownTool(invalidParams, `Tool ${name} not found`)

export class UnknownTool extends ProtocolError {}

/** Arguments that the tool's own input schema refuses; the upstream has not seen them. */
export class InvalidArguments extends ProtocolError {
  readonly issues: InputIssue[]

  constructor(tool: string, issues: InputIssue[]) {
    const said = issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ')
    super(invalidParams, `Invalid arguments for tool ${tool}: ${said}`, { code: 'BAD_USER_INPUT', issues })
    this.issues = issues
  }
}

/** A credential where the organisation lets none pass; on its way to the upstream, or back. */
export class SecretInArguments extends InvalidArguments {}
export class SecretInAnswer extends AppError {}

export type WireError = { code: number; message: string; data?: unknown }

const prefixes: Readonly<Record<string, string>> = {
  UPSTREAM_ERROR: 'Upstream error',
  UPSTREAM_TIMEOUT: 'Upstream timeout',
}

/** What an MCP client is told. The upstream's own errors pass as they are; ours carry the platform's code. */
export function wireError(error: unknown, requestId: string): WireError {
  if (error instanceof ProtocolError)
    return { code: error.code, message: error.message, ...(error.data === undefined ? {} : { data: error.data }) }
  if (error instanceof AppError) {
    const prefix = prefixes[error.code]
    return {
      code: internalError,
      message: prefix === undefined ? error.message : `${prefix}: ${error.message}`,
      data: {
        ...error.extensions,
        ...(error.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: error.retryAfterSeconds }),
        code: error.code,
        requestId,
      },
    }
  }
  if (error instanceof Cancelled) return { code: internalError, message: 'Cancelled', data: { requestId } }
  return { code: internalError, message: 'Internal error', data: { code: 'INTERNAL_SERVER_ERROR', requestId } }
}

/** The same failure for the control plane. */
export function domainError(error: unknown): unknown {
  if (error instanceof UnknownTool) return new AppError('NOT_FOUND', 'No such tool.')
  if (error instanceof InvalidArguments) return badInput(error.issues)
  if (!(error instanceof ProtocolError)) return error
  const extensions = { upstreamCode: error.code }
  if (error.code === invalidParams) return new AppError('BAD_USER_INPUT', error.message, { extensions, cause: error })
  return new AppError('UPSTREAM_ERROR', `The service answered: ${error.message}`, { extensions, cause: error })
}

/** How a call that threw goes into the request log. */
export function failureStatus(error: unknown): CallStatus {
  if (error instanceof UnknownTool) return 'denied'
  if (error instanceof SecretInArguments || error instanceof SecretInAnswer) return 'blocked'
  if (error instanceof InvalidArguments) return 'invalid_arguments'
  if (error instanceof Cancelled) return 'cancelled'
  if (error instanceof AppError && error.code === 'RATE_LIMITED') return 'limited'
  return error instanceof AppError && error.code === 'UPSTREAM_TIMEOUT' ? 'upstream_timeout' : 'upstream_error'
}
