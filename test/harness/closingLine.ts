import type { Reporter, TestModule } from 'vitest/node'

/** Closes a run with `N passed, N failed` alone on a line, which scripts can read whatever the runner's own summary looks like. */
export const closingLine: Reporter = {
  onTestRunEnd(modules: readonly TestModule[]) {
    const count = { passed: 0, failed: 0, skipped: 0 }
    for (const module of modules) {
      for (const state of ['passed', 'failed', 'skipped'] as const)
        count[state] += [...module.children.allTests(state)].length
      // A file that failed to load has no tests to count.
      if (module.state() === 'failed' && module.errors().length) count.failed += 1
    }
    const skipped = count.skipped ? `, ${count.skipped} skipped` : ''
    process.stdout.write(`\n${count.passed} passed, ${count.failed} failed${skipped}\n`)
  },
}
