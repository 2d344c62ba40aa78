import { useEffect, useRef, useState, type SubmitEvent } from 'react'
import { signIn, type Session } from './session.ts'

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

function SignInForm({ notice, onSignIn }: Pick<Props, 'notice' | 'onSignIn'>) {
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
    const outcome = await signIn({ email: text('email'), password: text('password') })
    if ('session' in outcome) return onSignIn(outcome.session)
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
      <button type="button" onClick={onSignOut}>
        Sign out
      </button>
    </div>
  )
}
