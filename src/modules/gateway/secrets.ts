/**
 * Finds credentials by the forms that their issuers give them. Words are looked at one by one, anchored and bounded, so that
 * a long text takes a time that grows with its length and no faster.
 */
const hint = /mcp_sk_|gh[pousr]_|github_pat_|glpat-|sk-|xox[abprs]-|AKIA|eyJ|PRIVATE KEY/
const form =
  /^(?:mcp_sk_\w{16}|gh[pousr]_\w{20}|github_pat_\w{20}|glpat-[\w-]{20}|sk-(?=[\w-]{0,60}\d)[\w-]{20}|xox[abprs]-[\w-]{10}|AKIA[0-9A-Z]{16}|eyJ[\w-]{10,4000}\.[\w-]{10,4000}\.)/
const privateKey = /-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----/
const maxDepth = 64

function holdsSecret(text: string): boolean {
  if (!hint.test(text)) return false
  if (privateKey.test(text)) return true
  for (const [word] of text.matchAll(/[\w.-]+/g)) if (form.test(word)) return true
  return false
}

/** The path of the first credential in a value, names of members included; null where there is none. */
export function secretIn(value: unknown, path: readonly string[] = []): string[] | null {
  if (typeof value === 'string') return holdsSecret(value) ? [...path] : null
  if (typeof value !== 'object' || value === null) return null
  // Nobody nests so deep but to hide something.
  if (path.length >= maxDepth) return [...path]
  for (const [name, inner] of Object.entries(value)) {
    if (!Array.isArray(value) && holdsSecret(name)) return [...path, '****']
    const found = secretIn(inner, [...path, name])
    if (found) return found
  }
  return null
}
