import { useEffect, useRef, useState, type SubmitEvent } from 'react'
import { SecondStepForm } from './secondStep.tsx'
import { signIn, type Challenge, type Session } from './session.ts'

type Props = { session: Session | null; notice: string; onSignIn: (session: Session) => void; onSignOut: () => void }

export function SignInBar({ session, notice, onSignIn, onSignOut }: Props) {
  return (
    <header className="bar">
      <p className="brand">
        <span className="mark" aria-hidden="true" />
        MCP Online Platform
      </p>
      {session ? (
        <SignedIn session={session} onSignOut={onSignOut} />
      ) : (
        <SignInForm notice={notice} onSignIn={onSignIn} />
      )}
    </header>
  )
}

/** The password first; then, where the account has one, a second factor. */
function SignInForm({ notice, onSignIn }: Pick<Props, 'notice' | 'onSignIn'>) {
  const [step, setStep] = useState<{ email: string; challenge: Challenge } | null>(null)
  if (step) return <SecondStepForm {...step} onSignIn={onSignIn} onCancel={() => setStep(null)} />
  return (
    <PasswordForm
      notice={notice}
      onSignIn={onSignIn}
      onChallenge={(email, challenge) => setStep({ email, challenge })}
    />
  )
}

type PasswordProps = Pick<Props, 'notice' | 'onSignIn'> & { onChallenge: (email: string, challenge: Challenge) => void }

function PasswordForm({ notice, onSignIn, onChallenge }: PasswordProps) {
  const [alert, setAlert] = useState(notice)
  const [pending, setPending] = useState(false)
  const password = useRef<HTMLInputElement>(null)

  async function submit(event: SubmitEvent<HTMLFormElement>) {
    event.preventDefault()
    const form = new FormData(event.currentTarget)
    setPending(true)
    setAlert('')
    const text = (name: string): string => {
      const value = form.get(name)
      return typeof value === 'string' ? value : ''
    }
    const email = text('email')
    const outcome = await signIn({ email, password: text('password') })
    if ('session' in outcome) return onSignIn(outcome.session)
    if ('challenge' in outcome) return onChallenge(email, outcome.challenge)
    setPending(false)
    setAlert(outcome.refusal)
    password.current?.select()
  }

  return (
    // Were the script to fail, a GET form would put the password in the address.
    <form className="sign-in" method="post" aria-label="Sign in" onSubmit={(event) => void submit(event)}>
      <p role="alert" id="sign-in-alert">
        {alert}
      </p>
      <label>
        E-mail
        <input name="email" type="email" autoComplete="username" required aria-describedby="sign-in-alert" />
      </label>
      <label>
        Password
        <input
          ref={password}
          name="password"
          type="password"
          autoComplete="current-password"
          required
          aria-describedby="sign-in-alert"
        />
      </label>
      <button type="submit" disabled={pending}>
        {pending ? 'Signing in…' : 'Sign in'}
      </button>
    </form>
  )
}

function SignedIn({ session, onSignOut }: { session: Session; onSignOut: () => void }) {
  const [leaving, setLeaving] = useState(false)
  const status = useRef<HTMLParagraphElement>(null)
  // The form that had the focus is gone: without this, a keyboard starts again at the top of the page.
  useEffect(() => status.current?.focus(), [])
  const until = session.expiresAt.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
  return (
    <div className="signed-in">
      <p ref={status} role="status" tabIndex={-1}>
        Signed in as <strong>{session.email}</strong> until{' '}
        <time dateTime={session.expiresAt.toISOString()}>{until}</time>
      </p>
      <button
        type="button"
        disabled={leaving}
        onClick={() => {
          setLeaving(true)
          onSignOut()
        }}
      >
        {leaving ? 'Signing out…' : 'Sign out'}
      </button>
    </div>
  )
}
