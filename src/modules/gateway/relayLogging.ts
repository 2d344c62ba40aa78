import type { LoggingLevel } from '@modelcontextprotocol/client'

const levels: readonly LoggingLevel[] = [
  'debug',
  'info',
  'notice',
  'warning',
  'error',
  'critical',
  'alert',
  'emergency',
]

export const isLoggingLevel = (value: unknown): value is LoggingLevel => (levels as readonly unknown[]).includes(value)

/** Whether a message is at least as severe as what the client wants to hear; without a wish, nothing is. */
export const louder = (level: unknown, wanted: LoggingLevel | undefined): boolean =>
  wanted !== undefined && isLoggingLevel(level) && levels.indexOf(level) >= levels.indexOf(wanted)
