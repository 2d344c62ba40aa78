import { useEffect, useRef, useState, type SubmitEvent } from 'react'
import { askPasskey, completeSignIn, sendCode, type Challenge, type Method, type Session } from './session.ts'

const names: Record<Method, string> = {
  PASSKEY: 'Passkey',
  TOTP: 'Authenticator app',
  EMAIL: 'Code by e-mail',
  RECOVERY_CODE: 'Recovery code',
}

type Props = {
  email: string
  challenge: Challenge
  onSignIn: (session: Session) => void
  /** Back to the password: also the way on when the challenge is over. */
  onCancel: () => void
}

export function SecondStepForm({ email, challenge, onSignIn, onCancel }: Props) {
  const { id, methods, message } = challenge
  const [method, setMethod] = useState<Method>(methods[0] ?? 'TOTP')
  const [alert, setAlert] = useState('')
  const [notice, setNotice] = useState(message)
  const [pending, setPending] = useState(false)
  const code = useRef<HTMLInputElement>(null)
  const submitButton = useRef<HTMLButtonElement>(null)
  // The password that had the focus is gone: without this, a keyboard starts again at the top of the page.
  useEffect(() => (code.current ?? submitButton.current)?.focus(), [method])

  async function run(work: () => Promise<{ refusal: string } | null>): Promise<void> {
    setPending(true)
    setAlert('')
    setAlert((await work())?.refusal ?? '')
    setPending(false)
  }

  const finish = async (): Promise<{ refusal: string } | null> => {
    const proof = method === 'PASSKEY' ? await askPasskey(id) : { method, code: code.current?.value ?? '' }
    if ('refusal' in proof) return proof
    const outcome = await completeSignIn(email, id, proof)
    if ('session' in outcome) onSignIn(outcome.session)
    code.current?.select()
    return 'refusal' in outcome ? outcome : null
  }

  const send = async (): Promise<{ refusal: string } | null> => {
    const refused = await sendCode(id)
    if (!refused) setNotice('A code is on its way to your address.')
    code.current?.focus()
    return refused
  }

  function submit(event: SubmitEvent<HTMLFormElement>): void {
    event.preventDefault()
    void run(finish)
  }

  return (
    <form className="sign-in" method="post" aria-label="Second factor" onSubmit={submit}>
      {alert ? (
        <p role="alert" id="second-step-note">
          {alert}
        </p>
      ) : (
        <p role="status" id="second-step-note">
          {notice}
        </p>
      )}
      {methods.length > 1 && (
        <label>
          Second factor
          <select value={method} onChange={(event) => setMethod(event.target.value as Method)}>
            {methods.map((each) => (
              <option key={each} value={each}>
                {names[each]}
              </option>
            ))}
          </select>
        </label>
      )}
      {method === 'EMAIL' && (
        <button type="button" disabled={pending} onClick={() => void run(send)}>
          Send code
        </button>
      )}
      {method !== 'PASSKEY' && (
        <label>
          Code
          <input
            ref={code}
            key={method}
            name="code"
            autoComplete="one-time-code"
            inputMode={method === 'RECOVERY_CODE' ? 'text' : 'numeric'}
            minLength={6}
            maxLength={64}
            required
            aria-describedby="second-step-note"
          />
        </label>
      )}
      <button ref={submitButton} type="submit" disabled={pending}>
        {method === 'PASSKEY' ? 'Use passkey' : 'Continue'}
      </button>
      <button type="button" disabled={pending} onClick={onCancel}>
        Cancel
      </button>
    </form>
  )
}
