import { readFileSync } from 'node:fs'
import { z } from 'zod'

const credential = '${credential}'
const placeholders: readonly string[] = [
  credential,
  '${organizationId}',
  '${serviceId}',
  '${userId}',
  '${workingDirectory}',
  '${node}',
]

const template = z
  .string()
  .max(4096)
  .refine((text) => !text.includes('\0'), 'expected no NUL')
  .refine(
    (text) => (text.match(/\$\{[^}]*\}/g) ?? []).every((found) => placeholders.includes(found)),
    `expected no placeholder but ${placeholders.join(', ')}`,
  )
// Everybody on the machine can read the arguments of a process.
const argument = template.refine((text) => !text.includes(credential), 'a credential belongs in `environment`')
const bounded = (fallback: number, min: number, max: number) => z.int().min(min).max(max).default(fallback)

const limits = z.strictObject({
  /** Resident memory of the process and all its children together, and the data segment of each. */
  memoryMebibytes: bounded(512, 32, 65_536),
  processes: bounded(32, 1, 1024),
  /** One message to the platform. */
  messageBytes: bounded(4 * 2 ** 20, 1024, 64 * 2 ** 20),
  /** All that it writes within a minute. */
  outputBytesPerMinute: bounded(256 * 2 ** 20, 4096, 2 ** 33),
  /** One file that it writes. */
  fileMebibytes: bounded(1024, 1, 65_536),
  startSeconds: bounded(10, 1, 120),
  idleSeconds: bounded(300, 1, 86_400),
  lifetimeSeconds: bounded(86_400, 1, 604_800),
})

const described = z.strictObject({
  title: z.string().trim().min(1).max(100),
  description: z.string().trim().max(2000).default(''),
  command: argument.min(1),
  arguments: z.array(argument).max(100).default([]),
  /** All that the process gets of an environment, beside `PATH`, `HOME`, `TMPDIR` and `LANG`. */
  environment: z.record(z.string().regex(/^[A-Za-z_]\w*$/, 'expected the name of a variable'), template).default({}),
  /** Who the process runs as; only a platform that runs as root can choose. */
  userId: z.int().min(1).optional(),
  groupId: z.int().min(1).optional(),
  limits: limits.prefault({}),
})
const entry = described.transform((given) => ({
  ...given,
  needsCredential: Object.values(given.environment).some((text) => text.includes(credential)),
}))

const catalogue = z.strictObject({
  /** Processes of all services together, on this instance. */
  maxProcesses: bounded(64, 1, 4096),
  maxProcessesPerOrganization: bounded(16, 1, 4096),
  services: z.record(z.string().regex(/^(?!-)[a-z0-9-]{1,40}(?<!-)$/, 'expected a name of a–z, 0–9 and dashes'), entry),
}) // prettier-ignore

/** The services that the operator offers to run as processes; read once, at start. */
export type Catalogue = z.infer<typeof catalogue>

/** The file's path as the setting has it, and its content as the platform uses it. */
export const catalogueFile = z.string().transform((path, context): Catalogue => {
  let json: unknown
  try {
    json = JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    context.addIssue({ code: 'custom', message: 'expected a readable file of JSON' })
    return z.NEVER
  }
  const { success, data, error } = catalogue.safeParse(json)
  if (success) return data
  for (const issue of error.issues) {
    const message = (issue.code === 'invalid_key' && issue.issues[0]?.message) || issue.message
    context.addIssue({ code: 'custom', message: `${issue.path.join('.')}: ${message}` })
  }
  return z.NEVER
}) // prettier-ignore
