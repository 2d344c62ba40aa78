import { openEmbedded } from '../../../dist/kernel/database/embedded.js'

// A process of its own that opens a folder, as the built server does, says how it went, and holds it until it is told to close.
const opened = await openEmbedded(process.argv[2]).catch((error) => error)
process.send('message' in opened ? opened.message : 'open')
process.once('message', async () => {
  await opened.close?.()
  process.exit(0)
})
