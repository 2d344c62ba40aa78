import { createApp } from './edge/app.ts'
import { serveMetrics } from './edge/metricsServer.ts'
import { ConfigError, loadConfig, type Config } from './config.ts'
import { openPlatform } from './compose.ts'
import { isEmpty, startDemo, type Demo } from './demo/demo.ts'
import { createLog } from './kernel/log.ts'
import { listen } from './listen.ts'
import { buildSchema } from './schema.ts'

/** config → platform → app → listen → graceful stop. */
async function run(config: Config): Promise<void> {
  const log = createLog(config)
  // The demo's own service listens on loopback, which nothing else may reach unless the operator allows it.
  const mayDemo = !config.databaseUrl && config.demo !== 'off'
  const demo: Demo | null = mayDemo ? await startDemo() : null
  const platform = await openPlatform(config, log, demo ? { demoOrigin: demo.origin } : {})
  const app = createApp(platform, buildSchema())
  // Before the port opens, so that `/readyz` never says yes to half a demo.
  const introduction = demo && ((await isEmpty(platform)) ? await demo.found(platform) : await demo.resume(platform))
  const server = await listen(app, config)
  const measured = await serveMetrics(platform)
  if (measured) log.info({ address: measured.address }, 'metrics')
  const address = config.publicUrl ?? server.address
  if (introduction) process.stdout.write(introduction(address))
  // For people and scripts, whatever the log's level.
  process.stdout.write(`ready ${address}\n`)

  let stopping = false
  const stop = (signal: string): void => {
    if (stopping) return
    stopping = true
    log.info({ signal }, 'stopping: running requests are finished first')
    void server
      .stop()
      .then(() => Promise.all([demo?.close(), measured?.close()]))
      .then(
        () => process.exit(0),
        (error: unknown) => {
          log.fatal({ err: error }, 'the stop failed')
          process.exit(1)
        },
      )
  }
  process.on('SIGTERM', () => stop('SIGTERM'))
  process.on('SIGINT', () => stop('SIGINT'))
}

/** What an operator needs to know: each message down to the first cause. */
function reasons(error: unknown): string[] {
  if (!(error instanceof Error)) return [String(error)]
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name
  return [error.message || code, ...(error.cause === undefined ? [] : reasons(error.cause))]
}

try {
  await run(loadConfig())
} catch (error) {
  const [first, ...causes] = error instanceof ConfigError ? [error.message] : reasons(error)
  process.stderr.write(['The platform did not start.', first, ...causes.map((cause) => `  because: ${cause}`), ''].join('\n')) // prettier-ignore
  process.exit(1)
}
