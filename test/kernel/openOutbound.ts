import type { IncomingMessage, ServerResponse } from 'node:http'
import { expect, onTestFinished } from 'vitest'
import { createOutbound, type Outbound, type OutboundOptions } from '../../src/kernel/outbound.ts'

/** An outbound door that lives as long as the test; it allows 127.0.0.1 alone. */
export function openOutbound(options: Partial<OutboundOptions> = {}): Outbound {
  const outbound = createOutbound({
    allowedCidrs: ['127.0.0.1/32'],
    connectTimeoutMs: 2_000,
    headersTimeoutMs: 2_000,
    bodyTimeoutMs: 2_000,
    maxResponseBytes: 100_000,
    maxRedirects: 3,
    ...options,
  })
  onTestFinished(() => outbound.close())
  return outbound
}

/** A world in which every name is at 127.0.0.1. */
export const allAtLoopback = { resolve: () => Promise.resolve(['127.0.0.1']) }

export const notAllowed = {
  name: 'AppError',
  code: 'UPSTREAM_ERROR',
  message: 'The upstream address is not allowed.',
  extensions: {},
}

export const failureOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => expect.unreachable('it should have failed'),
    (reason: unknown) => reason,
  )

export const redirect = (response: ServerResponse, location: string, status = 302): unknown =>
  response.writeHead(status, { location }).end()

type Echo = { method: string; url: string; headers: Record<string, string>; body: string }

/** Answers with the request as it arrived. */
export async function echo(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const body = Buffer.concat(chunks).toString()
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify({ method: request.method, url: request.url, headers: request.headers, body }))
}

export const echoOf = async (response: Response): Promise<Echo> => (await response.json()) as Echo
