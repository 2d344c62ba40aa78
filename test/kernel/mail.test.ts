import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { system } from '../../src/kernel/actor.ts'
import { mailer, type Mail } from '../../src/kernel/mail.ts'
import { createDatabase } from '../harness/database.ts'
import { openMailbox, readMail, type Mailbox } from '../harness/mailbox.ts'
import { createWorld, type World } from '../harness/world.ts'

const mail: Mail = { to: 'ada@example.com', subject: 'Hello', text: 'A first line.\nA second line.' }

/** Puts a mail in the outbox in a transaction of its own, as an operation would. */
async function post({ platform }: World, what: Mail, fail = false): Promise<void> {
  const effects: (() => Promise<void> | void)[] = []
  await platform.database.transact(system(), async (tx) => {
    const work = { tx, actor: system(), now: platform.clock(), afterCommit: (effect: () => void) => void effects.push(effect) } // prettier-ignore
    await mailer(platform).send(work, what)
    if (fail) throw new Error('the verb failed')
  })
  for (const effect of effects) await effect()
}

const waitingIn = ({ platform }: World): Promise<{ id: string; sealed: string; attempts: number; nextAttemptAt: Date }[]> =>
  platform.database.read(system(), (tx) => tx.mailOutbox.findMany()) // prettier-ignore

describe('mail by SMTP', () => {
  let mailbox: Mailbox
  let world: World
  let now = new Date()
  beforeAll(async () => {
    mailbox = await openMailbox()
    world = await createWorld(
      { SMTP_URL: mailbox.url, MAIL_FROM: 'Platform <front@example.com>' },
      { clock: () => now },
    )
  })
  afterEach(() => {
    mailbox.received.length = 0
    now = new Date()
  })
  afterAll(async () => {
    await world.close()
    await mailbox.close()
  })

  it.each([
    ['a line break in the subject', { ...mail, subject: 'Hi\r\nBcc: eve@example.com' }],
    ['a lone carriage return in the subject', { ...mail, subject: 'Hi\rBcc: eve@example.com' }],
    ['a line break in the address', { ...mail, to: 'ada@example.com\r\nBcc: eve@example.com' }],
    ['two addresses', { ...mail, to: 'ada@example.com, eve@example.com' }],
    ['a group of addresses', { ...mail, to: 'Team:ada@example.com;' }],
  ])('refuses %s', async (_name, bad) => {
    await expect(post(world, bad)).rejects.toThrow()
    expect(await waitingIn(world)).toEqual([])
  })

  it('keeps header-like lines of the text in the text', async () => {
    await post(world, { ...mail, text: 'Bcc: eve@example.com\r\nSubject: other\r\n\r\n.\r\nQUIT' })
    const { to, headers, text } = await mailbox.to('ada@example.com')
    expect(to).toEqual(['ada@example.com'])
    expect(headers.has('bcc')).toBe(false)
    expect(text).toContain('\r\n.\r\nQUIT')
  })

  it('sends after the commit, from the configured sender, and keeps nothing', async () => {
    await post(world, mail)
    const { headers, text, from } = await mailbox.to('ada@example.com')
    expect(headers.get('subject')).toEqual(['Hello'])
    expect(from).toBe('front@example.com')
    expect(text.trim()).toBe('A first line.\r\nA second line.')
    await mailer(world.platform).deliver()
    expect(await waitingIn(world)).toEqual([])
  })

  it('sends nothing for a transaction that failed', async () => {
    await expect(post(world, mail, true)).rejects.toThrow('the verb failed')
    await mailer(world.platform).deliver()
    expect(mailbox.received).toEqual([])
    expect(await waitingIn(world)).toEqual([])
  })

  it('drops mail to nobody without sending it', async () => {
    await post(world, { ...mail, to: null })
    await mailer(world.platform).deliver()
    expect(mailbox.received).toEqual([])
    expect(await waitingIn(world)).toEqual([])
  })

  it('tries again later when the relay is busy, and keeps the text sealed meanwhile', async () => {
    mailbox.refuse(451, 1)
    await post(world, { ...mail, text: 'a-one-time-token' })
    await mailer(world.platform).deliver()
    const [row] = await waitingIn(world)
    expect(row?.attempts).toBe(1)
    expect(JSON.stringify(row)).not.toMatch(/ada@example|one-time/)
    await mailer(world.platform).deliver()
    expect(mailbox.received).toEqual([])
    now = new Date((row?.nextAttemptAt ?? now).getTime() + 1)
    await mailer(world.platform).deliver()
    expect(mailbox.received).toHaveLength(1)
    expect(await waitingIn(world)).toEqual([])
    expect(world.logged.join('')).not.toContain('ada@example.com')
  })

  it('gives up an address that the relay refuses for good', async () => {
    mailbox.refuse(550, 1)
    await post(world, mail)
    await mailer(world.platform).deliver()
    expect(await waitingIn(world)).toEqual([])
    expect(mailbox.received).toEqual([])
  })
})

it('sends what an instance left behind when it died between commit and sending', async () => {
  const mailbox = await openMailbox()
  const database = await createDatabase()
  // Nothing listens on the discard port: what this instance accepts, it cannot send.
  const first = await createWorld({ SMTP_URL: 'smtp://127.0.0.1:9' }, { database })
  await post(first, mail)
  await first.close()
  const later = new Date(Date.now() + 3_600_000)
  const second = await createWorld({ SMTP_URL: mailbox.url }, { database, clock: () => later })
  mailer(second.platform).start()
  expect((await mailbox.to('ada@example.com')).text).toContain('A first line.')
  await second.close()
  await database.drop()
  await mailbox.close()
})

it('sends each mail once though two workers work the outbox at the same time', async () => {
  const mailbox = await openMailbox()
  const database = await createDatabase()
  const one = await createWorld({ SMTP_URL: mailbox.url }, { database })
  const two = database.embedded ? one : await createWorld({ SMTP_URL: mailbox.url }, { database })
  await Promise.all(Array.from({ length: 30 }, (_, i) => post(i % 2 ? one : two, { ...mail, to: `p${i}@example.com` })))
  await Promise.all([mailer(one.platform).deliver(), mailer(two.platform).deliver()])
  await mailbox.until(() => mailbox.received.length >= 30)
  expect(new Set(mailbox.received.map(({ to }) => to[0])).size).toBe(30)
  expect(mailbox.received).toHaveLength(30)
  await one.close()
  if (two !== one) await two.close()
  await database.drop()
  await mailbox.close()
})

it('writes mail to files of its owner alone where no relay is set', async () => {
  const database = await createDatabase()
  const world = await createWorld({}, { database })
  await post(world, { ...mail, subject: 'Grüße' })
  await mailer(world.platform).deliver()
  const directory = join(database.settings['DATA_DIR'] ?? '', 'mail')
  const [name = ''] = await readdir(directory)
  expect(name).toMatch(/\.eml$/)
  const { headers, text } = readMail((await readFile(join(directory, name))).toString().replace(/\r?\n/g, '\r\n'))
  expect(headers.get('to')).toEqual(['ada@example.com'])
  expect(headers.get('from')).toEqual(['MCP Platform <no-reply@platform.test>'])
  expect(text).toContain('A second line.')
  await world.close()
  await database.drop()
})
