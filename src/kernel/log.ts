import { pino, type DestinationStream, type Logger } from 'pino'
import type { Config } from '../config.ts'

export type Log = Logger

/** Names under which a secret could stand in a logged object, at any of the first levels. */
const secretNames = [
  'authorization', 'cookie', 'password', 'newPassword', 'token', 'accessToken', 'refreshToken', 'secret', 'apiKey',
  'ciphertext', 'passwordHash', 'secretHash', 'masterKey', '["x-api-key"]', '["set-cookie"]',
] // prettier-ignore

const underAnyParent = (name: string): string[] =>
  ['', '*', '*.*', '*.*.*'].map((parent) =>
    parent && !name.startsWith('[') ? `${parent}.${name}` : `${parent}${name}`,
  )

/**
 * Structured log on standard output, written beside the work and not in its way; what waits is written when the process
 * ends, by itself or by a signal that it handles.
 * Secrets are a type that will not print; this is the second lock, by name.
 */
export const createLog = ({ logLevel }: Pick<Config, 'logLevel'>, destination?: DestinationStream): Log =>
  pino(
    {
      level: logLevel,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: secretNames.flatMap(underAnyParent), censor: '[secret]' },
    },
    destination ?? pino.destination({ sync: false }),
  )
