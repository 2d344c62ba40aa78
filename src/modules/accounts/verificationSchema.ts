import { builder } from '../../graphql/builder.ts'
import { expose } from '../../graphql/expose.ts'
import { inherited } from '../../graphql/rules.ts'
import { changePassword, requestPasswordReset, resetPassword } from './passwords.ts'
import { User } from './schema.ts'
import { verifyEmail } from './verification.ts'

const Accepted = builder.objectRef<object>('Accepted').implement({
  description: 'The request was taken. Whether anything comes of it is told by mail alone.',
  fields: (t) => ({ accepted: t.boolean({ rule: inherited, nullable: false, resolve: () => true }) }),
})

expose(changePassword, {
  type: User,
  description: 'Changes your password; your other sessions end.',
})
expose(requestPasswordReset, {
  type: Accepted,
  description: 'Mails a token for `resetPassword`, if there is such an account; at most three mails an hour.',
})
expose(resetPassword, {
  type: Accepted,
  description: 'Sets a new password by the token of a mail; every session ends.',
})
expose(verifyEmail, { type: Accepted, description: 'Confirms the account’s address by the token of a mail.' })
