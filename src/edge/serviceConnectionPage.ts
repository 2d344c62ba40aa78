/** The name of the channel between this page and a page of the platform that is signed in; GraphiQL listens to it. */
export const channelName = 'mcp-service-connection'

/** Shown where there is no frontend to hand the answer to. */
export const page = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width">
    <meta name="referrer" content="no-referrer">
    <title>Connecting an account · MCP Online Platform</title>
    <script type="module" src="/oauth/callback.js"></script>
  </head>
  <body>
    <main>
      <h1>Connecting an account</h1>
      <p role="status">One moment…</p>
      <noscript><p>This page needs JavaScript to hand the answer to the page that you began on.</p></noscript>
    </main>
  </body>
</html>
`

/**
 * Takes the answer out of the address, so that it stays in no history, and offers it to the platform's own signed-in page in
 * this browser. That page has the access token; this one has nothing.
 */
export const script = `const status = document.querySelector('[role=status]')
const answer = Object.fromEntries(
  ['code', 'state', 'iss', 'error'].flatMap((name) => {
    const value = new URLSearchParams(location.search).get(name)
    return value === null ? [] : [[name, value]]
  }),
)
const serviceId = location.pathname.split('/').pop()
history.replaceState(null, '', location.pathname)
const channel = new BroadcastChannel('${channelName}')
const nobody = setTimeout(() => {
  status.textContent = 'No signed-in page answered. Go back to the page where you began, and begin again.'
}, 5000)
channel.addEventListener('message', ({ data }) => {
  if (data?.kind !== 'outcome' || data.state !== answer.state) return
  clearTimeout(nobody)
  status.textContent = data.text
})
if (answer.state) channel.postMessage({ kind: 'answer', serviceId, ...answer })
`
