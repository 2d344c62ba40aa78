import { encodeNodeId } from '../../../src/kernel/nodeId.ts'
import { system } from '../../../src/kernel/actor.ts'
import { mailer } from '../../../src/kernel/mail.ts'
import { keyUse } from '../../../src/modules/apiKeys/keyUse.ts'
import { lastUse } from '../../../src/modules/sessions/lastUse.ts'
import { populate, unhurried, type Population } from '../../authorization/population.ts'
import { startAuthorizationServer, type AuthorizationServer } from '../../connections/peers/authorizationServer.ts'
import { publicUrl } from '../../connections/peers/connecting.ts'
import { startProtectedUpstream } from '../../connections/peers/protectedUpstream.ts'
import { writeCatalogue } from '../../gateway/peers/catalogue.ts'
import { startShifty, type Shifty } from '../../gateway/peers/shifty.ts'
import { openMailbox, type Mailbox } from '../../harness/mailbox.ts'
import { addMember, fresh, type Organization, type Person } from '../../harness/seed.ts'
import { behind, createTwin, createWorld, readAnswer, type World } from '../../harness/world.ts'
import type { Role } from '../../../src/kernel/permissions.ts'
import { MfaClient, MovableClock } from '../../sessions/mfaHarness.ts'
import { documentOf, type Asked, type Kind } from './documents.ts'

/** An organisation, `copies` rows of each person's in every table that the schema shows, and peers that are really there. */
export type Stage = {
  copies: number
  world: World
  /** The same platform, where an address must be proven. */
  strict: World
  clock: MovableClock
  client: MfaClient
  mailbox: Mailbox
  shifty: Shifty
  issuer: AuthorizationServer
  protectedUrl: string
  org: Organization
  town: Population
  close(): Promise<void>
}

const patient = {
  ...unhurried,
  PUBLIC_URL: publicUrl,
  OAUTH_ATTEMPTS_PER_USER_PER_HOUR: '1000',
  SIGN_UPS_PER_SOURCE_PER_HOUR: '1000',
}

/** Colleagues in number, past the five that every organisation here has. */
async function crowd({ platform }: World, orgId: string, copies: number): Promise<void> {
  const names = Array.from({ length: 5 * (copies - 1) }, (_, n) => ({ name: `Colleague ${n}`, email: `crowd-${n}@example.com`, passwordHash: '' })) // prettier-ignore
  await platform.database.transact(system(), async (tx) => {
    const users = await tx.user.createManyAndReturn({ data: names, select: { id: true } })
    await tx.membership.createMany({ data: users.map(({ id }) => ({ orgId, userId: id, role: 'VIEWER' as const })) })
  })
}

export async function setStage(copies: number): Promise<Stage> {
  const shifty = await startShifty()
  shifty.tools.set('echo', 'Repeats a text.')
  const town = await populate({ copies, endpoint: shifty.url })
  await town.doors.close()
  const clock = new MovableClock()
  const mailbox = await openMailbox()
  const catalogue = await writeCatalogue()
  const settings = { ...patient, SMTP_URL: mailbox.url, EMAIL_VERIFICATION: 'off', CATALOGUE_FILE: catalogue.path }
  const world = await createWorld(settings, { database: town.database, clock: clock.now })
  const strict = await createTwin(world, { ...settings, EMAIL_VERIFICATION: 'on' })
  await crowd(world, town.home.id, copies)
  const issuer = await startAuthorizationServer({ fetch: (path) => world.fetch(path) })
  const upstream = await startProtectedUpstream('modern', issuer)
  return {
    ...{ copies, world, strict, clock, mailbox, shifty, issuer, town },
    client: new MfaClient(world, clock),
    protectedUrl: upstream.url,
    org: town.home,
    async close() {
      await strict.close()
      await world.close()
      await town.database.drop()
      for (const peer of [mailbox, issuer, upstream, shifty]) await peer.close()
      await catalogue.remove()
    },
  }
}

/** The administrator of the stage, in a session whose second factor is fresh. */
export const admin = ({ world, org }: Stage): Promise<Person> => fresh(world, org.admin)

/** Somebody who can be changed, ended and removed, with as many sessions, keys and registered operations as there are copies. */
export async function somebody({ world, org, copies }: Stage, role: Role = 'DEVELOPER'): Promise<Person & { membershipId: string }> {
  const person = await fresh(world, await addMember(world, org.id, role))
  const { userId, orgId } = person
  const each = Array.from({ length: copies }, (_, n) => `${userId}-${n}`)
  const id = await world.platform.database.transact(system(), async (tx) => {
    const expiresAt = new Date(Date.now() + 86_400_000)
    await tx.session.createMany({ data: each.map(() => ({ userId, orgId, expiresAt })) })
    await tx.apiKey.createMany({ data: each.map((publicId) => ({ userId, orgId, publicId, name: 'key', secretHash: '', hint: '', scopes: ['mcp:read'] })) }) // prettier-ignore
    const row = await tx.membership.findFirstOrThrow({ where: { userId, orgId }, select: { id: true } })
    return row.id
  })
  return { ...person, membershipId: encodeNodeId('Membership', id) }
} // prettier-ignore

/** What one request took of the database: its statements, its round trips, and how often it counted something there. */
export type Taken = [statements: number, roundTrips: number, counts: number]

function takenOf({ exchanges, platform }: World): Taken {
  const apart = new Set<object>([platform.database])
  for (const { unit, texts } of exchanges) if (texts.some((text) => behind.test(text))) apart.add(unit)
  const own = exchanges.filter(({ unit }) => !apart.has(unit))
  // The last of an exchange is its statement; what stands before it opens a transaction or says who asks.
  const statements = own.filter(({ texts }) => !['COMMIT', 'ROLLBACK'].includes(texts.at(-1) ?? ''))
  return [statements.length, own.length, exchanges.filter(({ unit }) => unit === platform.database).length]
}

/** Everything that an earlier request left to be done is done, and the credential is known to this instance. */
async function settle({ world }: Stage, as: Asked['as'] = {}): Promise<void> {
  if (as.authorization) await world.graphql('{ viewer { id } }', {}, as)
  await mailer(world.platform).deliver()
  await lastUse(world.platform).flush()
  await keyUse(world.platform).flush()
}

/** Asks once, with everything before it settled. */
export async function ask(stage: Stage, kind: Kind, name: string, asked: Asked): Promise<{ response: Response; taken: Taken }> {
  const { world } = stage
  const { as = {}, input, headers } = asked
  await settle(stage, as)
  const sent = { 'content-type': 'application/json', ...(as.authorization ? { authorization: as.authorization } : {}), ...headers }
  const body = JSON.stringify({ query: documentOf(kind, name, asked), variables: input ? { input } : {} })
  world.exchanges.length = 0
  const response = await world.fetch('/graphql', { method: 'POST', headers: sent, body })
  return { response, taken: takenOf(world) }
} // prettier-ignore

/** What a question takes that is answered without an error. Reads are asked twice: what the first one remembers is there. */
export async function measure(stage: Stage, kind: Kind, name: string, asked: Asked): Promise<Taken> {
  if (kind === 'query') await ask(stage, kind, name, asked)
  const { response, taken } = await ask(stage, kind, name, asked)
  if (kind === 'subscription') {
    const reader = response.body?.getReader()
    const begun = await reader?.read()
    await reader?.cancel()
    if (response.headers.get('content-type') !== 'text/event-stream' || begun?.done !== false) throw new Error(`${name} did not begin.`)
    return taken
  }
  const { errors } = await readAnswer(response)
  if (errors.length) throw new Error(`${name}: ${JSON.stringify(errors)}`)
  return taken
} // prettier-ignore

/** Runs a mutation that only prepares; answers with what is selected. */
export async function prepare(stage: Pick<Stage, 'world'>, name: string, input: object, as: Asked['as'], selection = '{ id }'): Promise<any> {
  const query = documentOf('mutation', name, { input, selection })
  const { data, errors } = await stage.world.post({ query, variables: { input } }, as)
  if (!data?.[name]) throw new Error(`${name}: ${JSON.stringify(errors)}`)
  return data[name]
} // prettier-ignore
