import { createTransport } from 'nodemailer'
import { randomUUID } from 'node:crypto'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { isMember, system } from './actor.ts'
import type { Tx } from './database/door.ts'
import type { AfterCommit, Call } from './operation.ts'
import { resource, type Platform } from './platform.ts'
import { Secret } from './secret.ts'

/** One line of a header: a line break in it would begin a header of the caller's own (CWE-93). */
const headerLine = z.string().min(1).max(200).regex(/^[^\u0000-\u001f\u007f\u2028\u2029]+$/, 'expected one line') // prettier-ignore

const letter = z.strictObject({
  /** Null: nobody. It is stored and dropped like the others, so that mail for an unknown address takes as long. */
  to: z.email().max(254).nullable(),
  subject: headerLine,
  text: z.string().min(1).max(20_000),
})
export type Mail = z.input<typeof letter>

/** What a verb has at hand while its transaction is open. */
export type MailWork = Pick<Call, 'actor' | 'now'> & { tx: Tx; afterCommit: AfterCommit }

type Transport = (id: string, mail: { to: string; subject: string; text: string }) => Promise<void>
type Claimed = { id: string; sealed: string; attempts: number; created_at: Date }

const batchSize = 10
/** While one instance sends a mail, no other takes it; if it dies meanwhile, another does after this. */
const leaseSeconds = 120
const firstRetrySeconds = 30
const longestRetrySeconds = 3600
/** The tokens in mail are dead by then, so the mail is too. */
const givenUpAfterSeconds = 86_400
const pollSeconds = 15

const retrySeconds = (attempts: number): number =>
  Math.min(longestRetrySeconds, firstRetrySeconds * 2 ** Math.max(0, attempts - 1))

/** A refusal that a retry will not change (RFC 5321, 5yz), such as an address that does not exist. */
const isFinal = (error: unknown): boolean =>
  error instanceof Error &&
  'responseCode' in error &&
  typeof error.responseCode === 'number' &&
  error.responseCode >= 500 &&
  (!('code' in error) || error.code === 'EENVELOPE' || error.code === 'EMESSAGE')

function senderOf({ config, publicUrl }: Platform): string {
  return config.mailFrom ?? `MCP Platform <no-reply@${new URL(publicUrl).hostname.replace(/^\[|\]$/g, '')}>`
}

function smtp(platform: Platform, url: string): { send: Transport; close: () => void } {
  const timeouts = { connectionTimeout: 10_000, greetingTimeout: 10_000, socketTimeout: 30_000 }
  const { protocol } = new URL(url)
  const transport = createTransport({
    ...timeouts,
    url,
    pool: true,
    maxConnections: 2,
    secure: protocol === 'smtps:',
    // Nothing that a mail names is ever fetched or read.
    disableFileAccess: true,
    disableUrlAccess: true,
  } as Parameters<typeof createTransport>[0])
  return {
    send: async (id, mail) => {
      await transport.sendMail({ ...mail, from: senderOf(platform), messageId: messageIdOf(platform, id) })
    },
    close: () => transport.close(),
  }
}

const messageIdOf = ({ publicUrl }: Platform, id: string): string => `<${id}@${new URL(publicUrl).hostname}>`

function files(platform: Platform): { send: Transport; close: () => void } {
  const directory = join(platform.config.dataDirectory, 'mail')
  const transport = createTransport({ streamTransport: true, buffer: true })
  return {
    send: async (id, mail) => {
      const from = senderOf(platform)
      const { message } = await transport.sendMail({ ...mail, from, messageId: messageIdOf(platform, id) })
      await mkdir(directory, { recursive: true, mode: 0o700 })
      const path = join(directory, `${id}.eml`)
      await writeFile(`${path}.part`, message as Buffer, { mode: 0o600 })
      await rename(`${path}.part`, path)
    },
    close: () => transport.close(),
  }
}

/**
 * Mail goes out after the commit of the verb that sends it, at least once, by whichever instance comes first: the verb's
 * transaction puts it in the outbox, and a worker sends and deletes it. A mail of a transaction that failed never was.
 */
export class Mailer {
  readonly #platform: Platform
  readonly #transport: { send: Transport; close: () => void }
  #timer: NodeJS.Timeout | null = null
  #running: Promise<void> | null = null
  #again = false
  #closed = false

  constructor(platform: Platform) {
    this.#platform = platform
    const { smtpUrl } = platform.config
    this.#transport = smtpUrl ? smtp(platform, smtpUrl) : files(platform)
  }

  /** Puts a mail in the outbox, in the verb's transaction; it leaves after the commit. */
  async send({ tx, actor, now, afterCommit }: MailWork, mail: Mail): Promise<void> {
    const content = letter.parse(mail)
    const id = randomUUID()
    const sealed = this.#platform.vault.seal('mail', [id], new Secret(JSON.stringify(content)))
    const senderId = isMember(actor) ? actor.userId : null
    await tx.mailOutbox.createMany({ data: [{ id, senderId, sealed, createdAt: now, nextAttemptAt: now }] })
    afterCommit(() => void this.deliver().catch(() => {}))
  }

  /** Takes up what another start left behind, now and from time to time. */
  start(): void {
    if (this.#timer || this.#closed) return
    const turn = (): void => void this.deliver().catch(() => {})
    this.#timer = setInterval(turn, pollSeconds * 1000).unref()
    turn()
  }

  /** Sends what is due. Resolves when nothing that was due at the call is left unattempted. */
  deliver(): Promise<void> {
    if (this.#closed) return Promise.resolve()
    this.#again = true
    this.#running ??= this.#work().finally(() => (this.#running = null))
    return this.#running
  }

  async #work(): Promise<void> {
    while (this.#again && !this.#closed) {
      this.#again = false
      try {
        for (let batch = await this.#claim(); batch.length; batch = this.#closed ? [] : await this.#claim())
          await Promise.all(batch.map((row) => this.#attempt(row)))
      } catch (error) {
        this.#platform.log.error({ err: error }, 'the mail outbox could not be worked')
        throw error
      }
    }
  }

  #claim(): Promise<Claimed[]> {
    const now = this.#platform.clock()
    const leased = new Date(now.getTime() + leaseSeconds * 1000)
    return this.#platform.database.transact(
      system(),
      (tx) => tx.$queryRaw<Claimed[]>`
        UPDATE mail_outbox SET attempts = attempts + 1, next_attempt_at = ${leased}
        WHERE id IN (
          SELECT id FROM mail_outbox WHERE next_attempt_at <= ${now} ORDER BY next_attempt_at LIMIT ${batchSize}
          FOR UPDATE SKIP LOCKED
        )
        RETURNING id::text, sealed, attempts, created_at`,
    )
  }

  async #attempt({ id, sealed, attempts, created_at: createdAt }: Claimed): Promise<void> {
    const { log, clock } = this.#platform
    try {
      const { to, ...content } = letter.parse(JSON.parse(this.#platform.vault.open('mail', [id], sealed).reveal()))
      if (to !== null) await this.#transport.send(id, { to, ...content })
      await this.#drop(id)
    } catch (error) {
      const at = clock()
      const old = at.getTime() - createdAt.getTime() > givenUpAfterSeconds * 1000
      const final = old || isFinal(error)
      // The error of a relay can quote the address; its code says enough.
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
      log.error({ mail: id, attempts, reason: code }, final ? 'a mail was given up' : 'a mail could not be sent yet')
      if (final) return this.#drop(id)
      const nextAttemptAt = new Date(at.getTime() + retrySeconds(attempts) * 1000)
      await this.#platform.database.transact(system(), (tx) =>
        tx.mailOutbox.updateMany({ where: { id }, data: { nextAttemptAt } }),
      )
    }
  }

  async #drop(id: string): Promise<void> {
    await this.#platform.database.transact(system(), (tx) => tx.mailOutbox.deleteMany({ where: { id } }))
  }

  async close(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer)
    this.#closed = true
    await this.#running?.catch(() => {})
    this.#transport.close()
  }
}

export const mailer = resource((platform) => new Mailer(platform))
