import { TOTP } from 'otpauth'
import type { Clock } from '../../src/kernel/clock.ts'
import { password, type Person } from '../harness/seed.ts'
import type { Answer, World } from '../harness/world.ts'
import { SoftAuthenticator } from './softAuthenticator.ts'

/** A clock that a test moves; it starts at the real time, since the database has only that. */
export class MovableClock {
  #offsetMs = 0
  readonly now: Clock = () => new Date(Date.now() + this.#offsetMs)

  forward(seconds: number): void {
    this.#offsetMs += seconds * 1000
  }
}

type As = { authorization?: string }

/** The verbs of second factors as a page uses them: through GraphQL, with nothing but what the API gave. */
export class MfaClient {
  readonly #world: World
  readonly #clock: MovableClock

  constructor(world: World, clock: MovableClock) {
    this.#world = world
    this.#clock = clock
  }

  run(field: string, input: object | null, selection: string, as: As = {}): Promise<Answer<any>> {
    const type = `${field[0]?.toUpperCase()}${field.slice(1)}Input`
    return input === null
      ? this.#world.graphql(`mutation { ${field} { ${selection} } }`, {}, as)
      : this.#world.graphql(`mutation ($input: ${type}!) { ${field}(input: $input) { ${selection} } }`, { input }, as)
  }

  async must<T = any>(field: string, input: object | null, selection: string, as: As = {}): Promise<T> {
    const { data, errors } = await this.run(field, input, selection, as)
    if (!data?.[field]) throw new Error(`${field}: ${JSON.stringify(errors)}`)
    return data[field] as T
  }

  code(secret: string): string {
    return new TOTP({ secret, digits: 6, period: 30 }).generate({ timestamp: this.#clock.now().getTime() })
  }

  /** The next code that was not used yet: one step on. */
  nextCode(secret: string): string {
    this.#clock.forward(30)
    return this.code(secret)
  }

  async enrolTotp(person: Person): Promise<{ secret: string; id: string; recoveryCodes: string[]; person: Person }> {
    const { id, secret } = await this.must('enrolTotp', { password }, 'id secret', person)
    const { recoveryCodes, accessToken } = await this.must(
      'confirmTotp',
      { id, code: this.code(secret) },
      'recoveryCodes accessToken',
      person,
    )
    return { id, secret, recoveryCodes, person: { ...person, authorization: `Bearer ${accessToken}` } }
  }

  async enrolPasskey(person: Person): Promise<{ passkey: SoftAuthenticator; person: Person; recoveryCodes: string[] }> {
    const { options } = await this.must('startPasskeyRegistration', { password }, 'options', person)
    const passkey = new SoftAuthenticator(this.#world.platform.publicUrl)
    const { accessToken, recoveryCodes } = await this.must(
      'registerPasskey',
      { attestation: passkey.register(options) },
      'accessToken recoveryCodes',
      person,
    )
    return { passkey, recoveryCodes, person: { ...person, authorization: `Bearer ${accessToken}` } }
  }

  signIn(email: string): Promise<Answer<any>> {
    return this.run(
      'signIn',
      { email, password },
      'accessToken expiresAt user { id } challenge { id methods expiresAt message }',
    )
  }

  async challenge(email: string): Promise<{ id: string; methods: string[] }> {
    return (await this.signIn(email)).data.signIn.challenge
  }

  complete(challengeId: string, proof: object): Promise<Answer<any>> {
    return this.run('completeSignIn', { challengeId, ...proof }, 'accessToken user { id } challenge { id }')
  }

  stepUp(as: As, proof: object): Promise<Answer<any>> {
    return this.run('stepUp', proof, 'accessToken expiresAt', as)
  }

  /** An administrative mutation; whether it passes is what step-up is about. */
  administer(as: As): Promise<Answer<any>> {
    return this.run('updateOrganization', { name: 'Renamed' }, 'id', as)
  }
}
