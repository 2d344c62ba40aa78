import 'graphiql/setup-workers/vite'
import 'graphiql/style.css'
import './style.css'
import { GraphiQL } from 'graphiql'
import { useEffect, useMemo, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { completeConnections } from './connection.ts'
import { createPreferences } from './preferences.ts'
import { createFetcher, signOut, type Session } from './session.ts'
import { SignInBar } from './signInBar.tsx'

const defaultQuery = `# Sign in above, then press
# Ctrl-Enter to run this.
query Viewer {
  viewer {
    id
    name
    email
    organization {
      name
    }
  }
}
`

const preferences = createPreferences(localStorage)

// Dropping the document is the one way to forget everything at once: token, operations, history and answers on the screen.
const leave = (session: Session | null) => void (session ? signOut(session) : Promise.resolve()).then(() => location.reload()) // prettier-ignore

function App() {
  const [session, setSession] = useState<Session | null>(null)
  const [notice, setNotice] = useState('')
  // A new fetcher makes GraphiQL read the schema again, as what it may see depends on who asks.
  const fetcher = useMemo(() => createFetcher(session), [session])

  useEffect(() => {
    if (!session) return
    const expire = () => {
      setNotice('Your session has ended. Sign in again; what you wrote is still here.')
      setSession(null)
    }
    const timer = setTimeout(expire, session.expiresAt.getTime() - Date.now())
    return () => clearTimeout(timer)
  }, [session])

  useEffect(() => (session ? completeConnections(session) : undefined), [session])

  return (
    <>
      <SignInBar session={session} notice={notice} onSignIn={setSession} onSignOut={() => leave(session)} />
      <main>
        <GraphiQL fetcher={fetcher} storage={preferences} shouldPersistHeaders={false} defaultQuery={defaultQuery} />
      </main>
    </>
  )
}

const root = document.getElementById('root')
if (!root) throw new Error('The page has no root element.')
createRoot(root).render(<App />)
