import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { SMTPServer } from 'smtp-server'

export type Received = { to: string[]; from: string; raw: string; headers: Map<string, string[]>; text: string }

/** The text of a plain mail: transfer encoding and flowed lines (RFC 3676) undone. */
export function readMail(raw: string): Pick<Received, 'headers' | 'text'> {
  const [head = '', ...rest] = raw.split('\r\n\r\n')
  const headers = new Map<string, string[]>()
  for (const line of head.replace(/\r\n[ \t]+/g, ' ').split('\r\n')) {
    const [, name = '', value = ''] = /^([^:]+): ?(.*)$/.exec(line) ?? []
    headers.set(name.toLowerCase(), [...(headers.get(name.toLowerCase()) ?? []), value])
  }
  const body = rest.join('\r\n\r\n')
  const encoding = headers.get('content-transfer-encoding')?.[0]?.toLowerCase()
  if (encoding === 'base64') return { headers, text: Buffer.from(body, 'base64').toString() }
  if (encoding === 'quoted-printable') {
    const bytes = body.replace(/=\r\n/g, '').replace(/=([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16))) // prettier-ignore
    return { headers, text: Buffer.from(bytes, 'latin1').toString() }
  }
  const flowed = /format=flowed/i.test(headers.get('content-type')?.[0] ?? '')
  return { headers, text: flowed ? body.replace(/ \r\n/g, '') : body }
}

/** A real SMTP server on loopback that keeps what it is sent. */
export async function openMailbox() {
  const received: Received[] = []
  const waiting: (() => void)[] = []
  let refusal: { code: number; times: number } | null = null
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS'],
    onRcptTo(_address, _session, done) {
      if (!refusal || refusal.times <= 0) return done()
      refusal.times -= 1
      for (const wake of waiting.splice(0)) wake()
      done(Object.assign(new Error('refused'), { responseCode: refusal.code }))
    },
    onData(stream, session, done) {
      const chunks: Buffer[] = []
      stream.on('data', (chunk: Buffer) => chunks.push(chunk))
      stream.once('end', () => {
        const raw = Buffer.concat(chunks).toString()
        const { rcptTo, mailFrom } = session.envelope
        const from = mailFrom ? mailFrom.address : ''
        received.push({ to: rcptTo.map(({ address }) => address), from, raw, ...readMail(raw) })
        done()
        for (const wake of waiting.splice(0)) wake()
      })
    },
  })
  server.on('error', () => {})
  const listening = server.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  const { port } = listening.address() as AddressInfo
  const until = async (holds: () => boolean): Promise<void> => {
    while (!holds()) await new Promise<void>((resolve) => waiting.push(resolve))
  }
  return {
    url: `smtp://127.0.0.1:${port}`,
    received,
    /** Refuses the next recipients with an SMTP code. */
    refuse: (code: number, times: number) => void (refusal = { code, times }),
    until,
    /** The latest mail to an address, once there have been `count` of them. */
    async to(address: string, count = 1): Promise<Received> {
      const mine = () => received.filter(({ to }) => to.includes(address))
      await until(() => mine().length >= count)
      return mine().at(-1) as Received
    },
    close: () => new Promise<void>((resolve) => server.close(() => resolve())),
  }
}
export type Mailbox = Awaited<ReturnType<typeof openMailbox>>

/** The one-time token that a mail carries. */
export function tokenIn({ text }: Pick<Received, 'text'>): string {
  const token = /^[\w-]{43}$/m.exec(text.replaceAll('\r', ''))?.[0]
  if (!token) throw new Error('the mail carries no token')
  return token
}
