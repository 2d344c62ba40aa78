import { builder } from '../../graphql/builder.ts'
import type { GraphContext } from '../../graphql/context.ts'
import { expose } from '../../graphql/expose.ts'
import { inherited } from '../../graphql/rules.ts'
import type { Secret } from '../../kernel/secret.ts'
import { SecondFactor } from '../accounts/factorsSchema.ts'
import { signedIn, type OpenedSession } from './operations.ts'
import { sendSignInCode, startPasskeySignIn } from './secondStep.ts'
import { sendStepUpCode, startPasskeyStepUp, stepUp } from './stepUp.ts'
import * as enrolment from './stepUpEnrolment.ts'

/** The token that says of the session what its row now says: that a second factor was given. */
const freshToken = ({ platform, actor }: GraphContext, session: OpenedSession) =>
  signedIn({ platform, actor, now: platform.clock() }, session)

const SteppedUp = builder.objectRef<{ accessToken: string; expiresAt: Date }>('SteppedUp').implement({
  description: 'The same session with a fresh second factor: administrative actions are open for ten minutes.',
  fields: (t) => ({
    accessToken: t.exposeString('accessToken', {
      dataClass: 'secret',
      rule: inherited,
      nullable: false,
      description: 'Takes the place of the one you sent.',
    }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', rule: inherited, nullable: false }),
  }),
})

expose(stepUp, {
  type: SteppedUp,
  description: 'Gives a second factor in a session that stands. It counts as fresh for ten minutes.',
  resolve: (session, context) => freshToken(context, session),
})

const SentCode = builder.objectRef<{ expiresAt: Date }>('SentCode').implement({
  description: 'A code is on its way to the account’s own address.',
  fields: (t) => ({ expiresAt: t.expose('expiresAt', { type: 'DateTime', rule: inherited, nullable: false }) }),
})
expose(sendStepUpCode, { type: SentCode, description: 'Sends a code for `stepUp`; at most three in fifteen minutes.' })
expose(sendSignInCode, {
  type: SentCode,
  description: 'Sends a code for `completeSignIn`; at most three in fifteen minutes.',
})

const PasskeyOptions = builder.objectRef<{ options: unknown }>('PasskeyOptions').implement({
  description: 'What the browser’s `navigator.credentials` takes, good once and for five minutes.',
  fields: (t) => ({
    options: t.field({
      type: 'JSON',
      rule: inherited,
      nullable: false,
      description: 'For `PublicKeyCredential.parseCreationOptionsFromJSON()` or `parseRequestOptionsFromJSON()`.',
      resolve: ({ options }) => options,
    }),
  }),
})
expose(startPasskeyStepUp, {
  type: PasskeyOptions,
  description: 'What a passkey signs for `stepUp`.',
  resolve: (options) => ({ options }),
})
expose(startPasskeySignIn, {
  type: PasskeyOptions,
  description: 'What a passkey signs for `completeSignIn`, or, without a challenge, for `signInWithPasskey`.',
  resolve: (options) => ({ options }),
})
expose(enrolment.startPasskeyRegistration, {
  type: PasskeyOptions,
  description: 'What a new passkey signs for `registerPasskey`.',
})

const TotpEnrolment = builder
  .objectRef<{ id: string; secret: Secret; uri: Secret; qrCode: Secret }>('TotpEnrolment')
  .implement({
    description: 'A pending authenticator app, shown once. It counts after `confirmTotp`.',
    fields: (t) => ({
      id: t.globalID({ rule: inherited, nullable: false, resolve: ({ id }) => ({ type: 'SecondFactor', id }) }),
      secret: t.string({
        dataClass: 'secret',
        rule: inherited,
        nullable: false,
        description: 'In base 32, to type in.',
        resolve: ({ secret }) => secret.reveal(),
      }),
      uri: t.string({
        dataClass: 'secret',
        rule: inherited,
        nullable: false,
        description: 'The `otpauth://` address that the QR code holds.',
        resolve: ({ uri }) => uri.reveal(),
      }),
      qrCode: t.string({
        dataClass: 'secret',
        rule: inherited,
        nullable: false,
        description: 'An SVG document.',
        resolve: ({ qrCode }) => qrCode.reveal(),
      }),
    }),
  })
expose(enrolment.enrolTotp, { type: TotpEnrolment, description: 'Begins to enrol an authenticator app.' })
expose(enrolment.enrolEmailCodes, {
  type: SentCode,
  description: 'Begins to enrol codes by e-mail, by sending the first.',
})

type EnrolledFactor = Omit<enrolment.Enrolled, 'session'> & { accessToken: string; expiresAt: Date }
const EnrolledFactor = builder.objectRef<EnrolledFactor>('EnrolledFactor').implement({
  description: 'The factor counts from now on, and this session holds it fresh.',
  fields: (t) => ({
    factor: t.field({
      type: SecondFactor,
      rule: inherited,
      nullable: true,
      resolve: ({ factor: { id } }) => ({ id }) as never,
    }),
    recoveryCodes: t.stringList({
      dataClass: 'secret',
      rule: inherited,
      nullable: true,
      description: 'With the first factor: ten codes, each good once, shown once. Keep them apart from your devices.',
      resolve: ({ recoveryCodes }) => recoveryCodes?.map((code) => code.reveal()),
    }),
    accessToken: t.exposeString('accessToken', {
      dataClass: 'secret',
      rule: inherited,
      nullable: false,
      description: 'Takes the place of the one you sent.',
    }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', rule: inherited, nullable: false }),
  }),
})
const enrolled = async ({ session, ...rest }: enrolment.Enrolled, context: GraphContext): Promise<EnrolledFactor> => ({
  ...rest,
  ...(await freshToken(context, session)),
})
expose(enrolment.confirmTotp, {
  type: EnrolledFactor,
  description: 'Turns the pending authenticator app into a second factor, by its first code.',
  resolve: enrolled,
})
expose(enrolment.confirmEmailCodes, {
  type: EnrolledFactor,
  description: 'Makes codes by e-mail a second factor, by the code that was sent.',
  resolve: enrolled,
})
expose(enrolment.registerPasskey, { type: EnrolledFactor, description: 'Adds a passkey.', resolve: enrolled })

const RemovedFactor = builder.objectRef<{ id: string }>('RemovedSecondFactor').implement({
  description: 'A second factor that is gone. With the last one go the recovery codes.',
  fields: (t) => ({
    id: t.globalID({ rule: inherited, nullable: false, resolve: ({ id }) => ({ type: 'SecondFactor', id }) }),
  }),
})
expose(enrolment.removeSecondFactor, { type: RemovedFactor, description: 'Removes a second factor of your own.' })

const RecoveryCodes = builder.objectRef<{ codes: Secret[] }>('RecoveryCodes').implement({
  description: 'The only answer that ever holds them.',
  fields: (t) => ({
    codes: t.stringList({
      dataClass: 'secret',
      rule: inherited,
      nullable: false,
      resolve: ({ codes }) => codes.map((c) => c.reveal()),
    }),
  }),
})
expose(enrolment.regenerateRecoveryCodes, {
  type: RecoveryCodes,
  description: 'Ten new recovery codes. Those given before are void.',
})
