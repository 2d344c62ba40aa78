import type { Prisma } from '../../generated/prisma/client.ts'

const secretName =
  /pass(word|phrase)?|secret|token|api[-_]?key|authorization|credential|cookie|private[-_]?key|^(pin|otp|cvv)$/i
// Forms that well-known issuers give their secrets, the structure of a JWT, and a private key, whole or cut off.
const secretValues = [
  /Bearer\s+[\w.~+/=-]{8,}/g,
  /mcp_sk_\w+|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}/g,
  /eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*/g,
  /-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*-----|)/g,
]
const email = /\b([\w.+-])[\w.+-]*@([\w.-]+\.[\w-]{2,})\b/g

const mask = '****'
const maxDepth = 8
const maxItems = 50
const maxText = 500

/** How much of a text is looked through, and how much of its end is given up where a word is cut: half a secret has no form to be known by. */
const maxRead = 2000
const maxCut = 200

const beginning = (text: string): string =>
  text.slice(0, maxRead - maxCut) + text.slice(maxRead - maxCut, maxRead).replace(/[\w.~+/=-]+$/, '')

const redactText = (text: string): string => {
  const long = text.length > maxRead
  const read = long ? beginning(text) : text
  const masked = secretValues.reduce((rest, form) => rest.replace(form, mask), read)
  const clean = masked.replace(email, '$1***@$2')
  return long || clean.length > maxText ? `${storable(clean)}…` : storable(clean)
}

// NUL, which no text of the database can hold, and halves of surrogate pairs, which no UTF-8 can: also those that cutting leaves.
const unstorable = /\0|\p{Surrogate}/gu

/** A text as the database can keep it, at most 500 characters long. */
export const storable = (text: string): string => text.slice(0, maxText).replace(unstorable, '\ufffd')

/** What of a call's arguments may be stored: secrets by name and by form become `****`, e-mail addresses are masked, size is bounded. */
export function redact(value: unknown, depth = 0): Prisma.InputJsonValue | null {
  if (typeof value === 'string') return redactText(value)
  if (typeof value === 'number' || typeof value === 'boolean') return value
  if (typeof value !== 'object' || value === null) return null
  if (depth >= maxDepth) return '…'
  if (Array.isArray(value)) return value.slice(0, maxItems).map((item) => redact(item, depth + 1))
  return Object.fromEntries(
    Object.entries(value)
      .slice(0, maxItems)
      .map(([name, item]) => [redactText(name), secretName.test(name) ? mask : redact(item, depth + 1)]),
  )
}
