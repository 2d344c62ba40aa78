import { createHash, generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto'

/** The JSON forms of WebAuthn Level 3, section 5.1: what a page gets from us and sends to us. */
type CreationOptions = { challenge: string; rp: { id: string }; user: { id: string } }
type RequestOptions = { challenge: string; rpId: string }

export type Assertion = {
  id: string
  rawId: string
  type: 'public-key'
  clientExtensionResults: object
  response: { clientDataJSON: string; authenticatorData: string; signature: string; userHandle?: string }
}

/** What a test can make go wrong. */
type Faults = {
  origin?: string
  challenge?: string
  rpId?: string
  counter?: number
  userVerified?: boolean
  crossOrigin?: boolean
  userHandle?: string | null
}

const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')
const sha256 = (data: string | Uint8Array): Buffer => createHash('sha256').update(data).digest()

/** Enough of CBOR (RFC 8949) for an attestation object and a COSE key: small maps, text, bytes and integers. */
function cbor(value: unknown): Buffer {
  const head = (major: number, length: number): Buffer => {
    if (length < 24) return Buffer.from([(major << 5) | length])
    if (length < 256) return Buffer.from([(major << 5) | 24, length])
    return Buffer.from([(major << 5) | 25, length >> 8, length & 255])
  }
  if (typeof value === 'number') return value >= 0 ? head(0, value) : head(1, -1 - value)
  if (typeof value === 'string') return Buffer.concat([head(3, Buffer.byteLength(value)), Buffer.from(value)])
  if (value instanceof Uint8Array) return Buffer.concat([head(2, value.length), value])
  if (value instanceof Map)
    return Buffer.concat([head(5, value.size), ...[...value].flatMap(([k, v]) => [cbor(k), cbor(v)])])
  throw new TypeError('no CBOR for this value')
}

const flags = { userPresent: 0x01, userVerified: 0x04, attested: 0x40 }

/** A passkey in software: an ES256 key, a counter, and a user handle. It signs what it is told to, right or wrong. */
export class SoftAuthenticator {
  readonly #privateKey: KeyObject
  readonly #publicKey: KeyObject
  readonly #id = randomBytes(32)
  readonly #origin: string
  #userHandle = ''
  counter = 0

  constructor(origin: string) {
    this.#origin = origin
    const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    this.#privateKey = pair.privateKey
    this.#publicKey = pair.publicKey
  }

  get id(): string {
    return base64url(this.#id)
  }

  get userHandle(): string {
    return this.#userHandle
  }

  #clientData(type: string, challenge: string, { origin, crossOrigin = false }: Faults): Buffer {
    return Buffer.from(JSON.stringify({ type, challenge, origin: origin ?? this.#origin, crossOrigin }))
  }

  #authenticatorData(rpId: string, bits: number, counter: number, attested = Buffer.alloc(0)): Buffer {
    const count = Buffer.alloc(4)
    count.writeUInt32BE(counter)
    return Buffer.concat([sha256(rpId), Buffer.from([bits]), count, attested])
  }

  #coseKey(): Buffer {
    const { x = '', y = '' } = this.#publicKey.export({ format: 'jwk' }) as { x?: string; y?: string }
    return cbor(
      new Map<number, unknown>([
        [1, 2],
        [3, -7],
        [-1, 1],
        [-2, Buffer.from(x, 'base64url')],
        [-3, Buffer.from(y, 'base64url')],
      ]),
    )
  }

  /** Answers `navigator.credentials.create()`. */
  register(options: CreationOptions, faults: Faults = {}): Record<string, unknown> {
    this.#userHandle = options.user.id
    const length = Buffer.from([this.#id.length >> 8, this.#id.length & 255])
    const attested = Buffer.concat([Buffer.alloc(16), length, this.#id, this.#coseKey()])
    const bits = flags.userPresent | flags.userVerified | flags.attested
    const authData = this.#authenticatorData(faults.rpId ?? options.rp.id, bits, this.counter, attested)
    const object = cbor(
      new Map<string, unknown>([
        ['fmt', 'none'],
        ['attStmt', new Map()],
        ['authData', authData],
      ]),
    )
    const clientData = this.#clientData('webauthn.create', faults.challenge ?? options.challenge, faults)
    return {
      id: this.id,
      rawId: this.id,
      type: 'public-key',
      clientExtensionResults: {},
      response: {
        clientDataJSON: base64url(clientData),
        attestationObject: base64url(object),
        transports: ['internal'],
      },
    }
  }

  /** Answers `navigator.credentials.get()`. */
  assert(options: RequestOptions, faults: Faults = {}): Assertion {
    this.counter += 1
    const verified = faults.userVerified === false ? 0 : flags.userVerified
    const counter = faults.counter ?? this.counter
    const authData = this.#authenticatorData(faults.rpId ?? options.rpId, flags.userPresent | verified, counter)
    const clientData = this.#clientData('webauthn.get', faults.challenge ?? options.challenge, faults)
    const signature = sign('sha256', Buffer.concat([authData, sha256(clientData)]), this.#privateKey)
    const userHandle = faults.userHandle === undefined ? this.#userHandle : faults.userHandle
    return {
      id: this.id,
      rawId: this.id,
      type: 'public-key',
      clientExtensionResults: {},
      response: {
        clientDataJSON: base64url(clientData),
        authenticatorData: base64url(authData),
        signature: base64url(signature),
        ...(userHandle === null ? {} : { userHandle }),
      },
    }
  }
}
