import { createApp } from './edge/app.ts'
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
  const server = await listen(app, config)
  const address = config.publicUrl ?? `http://${config.host}:${server.port}`
  if (demo)
    process.stdout.write(
      (await isEmpty(platform)) ? await demo.introduce(platform, address) : await demo.resume(platform),
    )
  log.info({ address }, 'ready')
  if (
    config.logLevel === 'silent' ||
    config.logLevel === 'error' ||
    config.logLevel === 'fatal' ||
    config.logLevel === 'warn'
  )
    process.stdout.write(`ready ${address}\n`)

  let stopping = false
  const stop = (signal: string): void => {
    if (stopping) return
    stopping = true
    log.info({ signal }, 'stopping: running requests are finished first')
    void server
      .stop()
      .then(() => demo?.close())
      .then(
        () => process.exit(0),
        (error: unknown) => {
          log.fatal({ err: error }, 'the stop failed')
          process.exit(1)
        },
      )
  }
  process.once('SIGTERM', () => stop('SIGTERM'))
  process.once('SIGINT', () => stop('SIGINT'))
}

try {
  await run(loadConfig())
} catch (error) {
  process.stderr.write(
    `${error instanceof ConfigError ? error.message : error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
  )
  process.exit(1)
}
