import { openEmbedded } from '../../../src/kernel/database/embedded.ts'

// A process of its own that opens a folder, says how it went, and holds it until it is told to close.
const [, , directory = ''] = process.argv
const opened = await openEmbedded(directory).catch((error: unknown) => error as Error)
process.send?.('message' in opened ? opened.message : 'open')
process.once('message', () => {
  const closed = 'close' in opened ? opened.close() : Promise.resolve()
  void closed.then(() => process.exit(0))
})
