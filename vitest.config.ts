import { statfsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'
import { findChromium } from './test/browser/chromium.ts'
import { closingLine } from './test/harness/closingLine.ts'

const common = {
  globalSetup: ['test/harness/globalSetup.ts'],
  testTimeout: 120_000,
  hookTimeout: 180_000,
  pool: 'forks' as const,
  // Almost everything in a test runs once or twice, on cores that all of the workers share: compiling it again for speed, or
  // collecting garbage beside it, takes longer than it saves. And a worker makes and drops whole platforms: with more room for
  // what is new, less of that is copied.
  execArgv: [
    '--max-semi-space-size=64',
    '--single-threaded-gc',
    '--always-sparkplug',
    '--interrupt-budget=1000000',
    '--liftoff-only',
  ],
  // Modules hold no state of their own, so a worker loads them once for all of its files.
  isolate: false,
}

// Node takes the CommonJS build of graphql, so the tests must too: two copies of it refuse each other's types.
const resolve = { alias: [{ find: /^graphql$/, replacement: 'graphql/index.js' }] }
const node = {
  resolve,
  test: { ...common, name: 'node', include: ['test/**/*.test.ts'], exclude: ['test/browser/**'] },
}
const browser = { resolve, test: { ...common, name: 'browser', include: ['test/browser/**/*.browser.test.ts'] } }

/** What can only be judged by a clock, or by many repetitions: `npm run measured`, one at a time, on a machine with nothing else to do. */
const measured = {
  resolve,
  test: { ...common, name: 'measured', include: ['test/**/*.measured.ts'], fileParallelism: false },
}

/** Each world copies a database of a thousand files: where memory has room for them, that takes a third of the time. */
function useMemoryForScratch(): void {
  const memory = '/dev/shm'
  if (process.platform !== 'linux' || process.env['TMPDIR']) return
  const { bavail, bsize } = statfsSync(memory)
  if (bavail * bsize > 4 * 2 ** 30) process.env['TMPDIR'] = memory
}
useMemoryForScratch()

const chromium = findChromium()
if (!chromium)
  process.stderr.write('Chromium was not found on this machine: the browser tests are left out here; CI runs them.\n')

export default defineConfig({
  test: {
    // One more than there are cores: much of a test is waiting for processes and timers.
    maxWorkers: availableParallelism() + 1,
    reporters: ['default', closingLine],
    projects: chromium ? [node, browser, measured] : [node, measured],
  },
})
