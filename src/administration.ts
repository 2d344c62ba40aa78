import { randomBytes } from 'node:crypto'
import { createInterface } from 'node:readline/promises'
import { openPlatform } from './compose.ts'
import { loadConfig } from './config.ts'
import { provideSchema } from './graphql/registry.ts'
import { system } from './kernel/actor.ts'
import { createLog } from './kernel/log.ts'
import { closeResources, type Platform } from './kernel/platform.ts'
import { signUp } from './modules/organizations/operations.ts'
import { checkPersistedOperations } from './modules/persisted/check.ts'
import { rotateSigningKey } from './modules/sessions/rotation.ts'
import { buildSchema } from './schema.ts'

/** Says a line to whoever runs the command. */
export type Print = (text: string) => void

async function withPlatform(work: (platform: Platform) => Promise<void>): Promise<void> {
  const config = loadConfig()
  const platform = await openPlatform(config, createLog({ logLevel: 'warn' }))
  try {
    await work(platform)
  } finally {
    await closeResources(platform)
    await platform.outbound.close()
    await platform.database.close()
  }
}

async function readPassword(): Promise<string> {
  for await (const line of createInterface({ input: process.stdin })) return line
  throw new Error('Expected a password on standard input.')
}

export type NewAdmin = { email: string; name: string; organization: string; passwordStdin: boolean }

/** Founds an organisation with its first administrator. */
export async function createAdmin({ email, name, organization, passwordStdin }: NewAdmin, print: Print): Promise<void> {
  const password = passwordStdin ? await readPassword() : randomBytes(15).toString('base64url')
  await withPlatform(async (platform) => {
    await signUp.run({ actor: system(), platform }, { email, password, name, organizationName: organization })
    print(`${email} administers ${organization}.`)
    if (!passwordStdin) print(`Password, shown once: ${password}`)
  })
}

/** Makes a new signing key for access tokens. */
export const rotateKeys = (print: Print): Promise<void> =>
  withPlatform(async (platform) => {
    const { kid } = await rotateSigningKey.run({ actor: system(), platform }, {})
    print(`Signing with ${kid} from now on; running instances follow within a minute.`)
  })

/** Reads every registered operation again under the schema of this build; answers whether all of them would still run. */
export async function checkOperations({ store }: { store: boolean }, print: Print): Promise<boolean> {
  let broken = 0
  await withPlatform(async (platform) => {
    provideSchema(platform, buildSchema())
    const verdicts = await checkPersistedOperations.run({ actor: system(), platform }, { store })
    for (const { id, name, version, broken: reason, newScopes } of verdicts) {
      const which = `${name ?? '(unnamed)'}@${version}\t${id}`
      if (reason) print(`broken\t${which}\t${reason}`)
      else if (newScopes.length) print(`changed\t${which}\tnow needs ${newScopes.join(' ')}`)
    }
    broken = verdicts.filter((verdict) => verdict.broken).length
    print(`${verdicts.length} registered operations, ${broken} broken`)
  })
  return broken === 0
}
