import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Hasher } from '../../src/kernel/hashing.ts'
import { mailer } from '../../src/kernel/mail.ts'
import { openMailbox, type Mailbox } from '../harness/mailbox.ts'
import { addMember, password, seedOrganization, type Organization } from '../harness/seed.ts'
import { createWorld, type Answer, type World } from '../harness/world.ts'

/**
 * The medians of two samples differ by no more than this: the larger of 15% and 5 ms. What an account that is not there would
 * spare is one bcrypt, 30 ms at the cost that is used here.
 */
const threshold = { share: 0.15, milliseconds: 5 }
const samples = 100
const cost = 9
/** A machine that is busy with other things may spoil a whole series; a difference of the code's own is in every one. */
const series = 3

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

let mailbox: Mailbox
let world: World
let org: Organization
const unlimited = {
  SIGN_UPS_PER_SOURCE_PER_HOUR: '1000',
  ANONYMOUS_REQUESTS_PER_SOURCE_PER_MINUTE: '100000',
  SIGN_IN_FAILURES_PER_SOURCE: '10000',
  SIGN_IN_FAILURES_PER_SOURCE_AND_ACCOUNT: '1000',
  SIGN_IN_FAILURES_PER_ACCOUNT: '10000',
}
beforeAll(async () => {
  mailbox = await openMailbox()
  const settings = { SMTP_URL: mailbox.url, EMAIL_VERIFICATION: 'off', ...unlimited }
  world = await createWorld(settings, { hasher: new Hasher(cost) })
  org = await seedOrganization(world)
})
afterAll(async () => {
  await world.close()
  await mailbox.close()
})

/** One series: asks for known and unknown addresses in turn, so that both meet the machine in the same moods. */
async function difference(
  ask: (email: string) => Promise<Answer>,
  known: string,
): Promise<{ ms: number; far: boolean }> {
  const times = { known: [] as number[], unknown: [] as number[] }
  const answers = { known: new Set<string>(), unknown: new Set<string>() }
  for (let i = 0; i < samples * 2 + 10; i += 1) {
    // Neither pattern nor parity: which comes first changes from pair to pair.
    const kind = (i + Math.floor(i / 2)) % 2 ? 'known' : 'unknown'
    const started = performance.now()
    const { status, data, errors } = await ask(kind === 'known' ? known : `${randomUUID()}@example.com`)
    const took = performance.now() - started
    await mailer(world.platform).deliver()
    if (i < 10) continue
    times[kind].push(took)
    const shown = errors.map(({ message, extensions: { code } }) => ({ message, code }))
    answers[kind].add(JSON.stringify([status, data, shown]))
  }
  expect([...answers.known]).toEqual([...answers.unknown])
  expect(answers.known.size).toBe(1)
  const [a, b] = [median(times.known), median(times.unknown)]
  const ms = Math.abs(a - b)
  return { ms, far: ms > Math.max(threshold.milliseconds, threshold.share * Math.max(a, b)) }
}

async function compare(ask: (email: string) => Promise<Answer>, known: string): Promise<void> {
  const found: number[] = []
  for (let i = 0; i < series; i += 1) {
    const { ms, far } = await difference(ask, known)
    if (!far) return
    found.push(ms)
  }
  expect.fail(`the medians differ by ${found.map((ms) => ms.toFixed(1)).join(', ')} ms`)
}

it('does not tell by the answer or time of a password reset whether there is an account', async () => {
  const { email } = await addMember(world, org.id, 'VIEWER')
  const text = 'mutation ($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { accepted } }'
  await compare((email) => world.graphql(text, { input: { email } }), email)
}, 120_000)

it('does not tell by the answer or time of a failed sign-in whether there is an account', async () => {
  const { email } = await addMember(world, org.id, 'VIEWER')
  const text = 'mutation ($input: SignInInput!) { signIn(input: $input) { accessToken } }'
  await compare((email) => world.graphql(text, { input: { email, password: `${password} wrong` } }), email)
}, 120_000)
