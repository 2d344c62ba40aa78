import { defineConfig } from 'vitest/config'
import { findChromium } from './test/browser/chromium.ts'
import { closingLine } from './test/harness/closingLine.ts'

const common = {
  globalSetup: ['test/harness/globalSetup.ts'],
  testTimeout: 120_000,
  hookTimeout: 180_000,
  pool: 'forks' as const,
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

const chromium = findChromium()
if (!chromium)
  process.stderr.write('Chromium was not found on this machine: the browser tests are left out here; CI runs them.\n')

export default defineConfig({
  test: {
    maxWorkers: 2,
    reporters: ['default', closingLine],
    projects: chromium ? [node, browser] : [node],
  },
})
