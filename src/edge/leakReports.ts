import type { Origin } from '../kernel/actor.ts'
import { notFound } from '../kernel/errors.ts'
import type { Platform } from '../kernel/platform.ts'
import { sourceOf } from '../kernel/source.ts'
import { throttle } from '../kernel/throttle.ts'
import { checkSignature, takeLeakReport } from '../modules/apiKeys/leaks.ts'
import { readBody } from './body.ts'

const bodyLimitBytes = 262_144

// The reporter sends again what it could not deliver, so this door may close while the counters are away.
const reports = throttle('leakReport', () => ({ limit: 600, windowSeconds: 60, withoutStore: 'refuse' }))

/** `POST /leak-reports`, in the manner of GitHub's secret scanning partners. Closed where no reporter's key is configured. */
export async function leakReport(platform: Platform, request: Request, origin: Origin): Promise<Response> {
  const keys = platform.config.leakReportKeys
  if (!keys) throw notFound('page')
  await reports(platform)?.consume(sourceOf(origin))
  const body = await readBody(request, bodyLimitBytes)
  checkSignature(keys, body, {
    identifier: request.headers.get('github-public-key-identifier'),
    signature: request.headers.get('github-public-key-signature'),
  })
  return new Response(JSON.stringify(await takeLeakReport(platform, body, origin)), {
    headers: { 'Content-Type': 'application/json; charset=utf-8' },
  })
}
