import { AppError, badInput } from '../kernel/errors.ts'

const tooLarge = (limitBytes: number): AppError =>
  new AppError('PAYLOAD_TOO_LARGE', `The body is larger than ${limitBytes} bytes.`)

function decoded(bytes: Uint8Array, limitBytes: number): string {
  if (bytes.byteLength > limitBytes) throw tooLarge(limitBytes)
  try {
    return utf8.decode(bytes)
  } catch (error) {
    throw badInput([{ path: [], message: 'expected a body in UTF-8' }], error)
  }
}
const utf8 = new TextDecoder('utf-8', { fatal: true })

/** The body as text. Refused as soon as it passes the limit, whatever length it announced. */
export async function readBody(request: Request, limitBytes: number): Promise<string> {
  if (Number(request.headers.get('content-length') ?? 0) > limitBytes) throw tooLarge(limitBytes)
  // With its length announced the body ends there, whatever its sender goes on to send (RFC 9112, 6.2).
  if (request.headers.has('content-length')) return decoded(new Uint8Array(await request.arrayBuffer()), limitBytes)
  if (!request.body) return ''
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let text = ''
  let size = 0
  const reader = request.body.getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return text + decoder.decode()
      size += value.byteLength
      if (size > limitBytes) throw tooLarge(limitBytes)
      text += decoder.decode(value, { stream: true })
    }
  } catch (error) {
    await reader.cancel().catch(() => {})
    if (error instanceof TypeError) throw badInput([{ path: [], message: 'expected a body in UTF-8' }], error)
    throw error
  }
}

// NUL, which no text of the database can hold, and halves of surrogate pairs, which no UTF-8 can.
const unstorable = /\0|\p{Surrogate}/u

/** A JSON body. Keys that could reach an object's prototype are dropped by the parser. */
export async function readJson(request: Request, limitBytes: number): Promise<unknown> {
  const [type = '', ...parameters] = (request.headers.get('content-type') ?? '')
    .split(';')
    .map((part) => part.trim().toLowerCase())
  const charset = parameters.find((parameter) => parameter.startsWith('charset='))
  if (type !== 'application/json' || (charset && !/^charset="?utf-8"?$/.test(charset)))
    throw new AppError('UNSUPPORTED_MEDIA_TYPE', 'Send the body as application/json in UTF-8.')
  const text = await readBody(request, limitBytes)
  try {
    return JSON.parse(text, function (this: unknown, key, value: unknown) {
      if (typeof value === 'string' && unstorable.test(value))
        throw badInput([{ path: [key], message: 'expected text without NUL characters or lone surrogates' }])
      return key === '__proto__' ? undefined : value
    }) as unknown
  } catch (cause) {
    if (cause instanceof AppError) throw cause
    throw badInput([{ path: [], message: 'expected a body of well-formed JSON' }], cause)
  }
}
