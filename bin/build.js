#!/usr/bin/env node
// Builds what a start needs, when the sources are newer than the last build: client, server, GraphiQL.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const stamp = join(root, 'dist/build.sha256')
const tools = join(root, 'node_modules/.bin')

/** Runs a tool of this package's own dependencies; its output is shown when it fails. */
export const run = (tool, args, environment = {}) =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(tools, tool), ...args], {
      cwd: root,
      env: { ...process.env, PATH: `${tools}${delimiter}${process.env.PATH}`, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const output = []
    child.stdout.on('data', (chunk) => output.push(chunk))
    child.stderr.on('data', (chunk) => output.push(chunk))
    child.once('error', reject)
    child.once('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`${tool} failed:\n${Buffer.concat(output).toString()}`)),
    )
  })

async function fingerprint() {
  const hash = createHash('sha256')
  const visit = async (path) => {
    const entries = await readdir(join(root, path), { withFileTypes: true, recursive: true })
    const files = entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    for (const file of files.sort())
      if (!file.includes('/generated/')) hash.update(file.slice(root.length)).update(await readFile(file))
  }
  await visit('src')
  await visit('prisma')
  for (const file of ['package-lock.json', 'tsconfig.json', 'tsconfig.build.json'])
    hash.update(await readFile(join(root, file)))
  return hash.digest('hex')
}

/** `prisma generate` wants an engine that it does not use; any executable keeps it from downloading one. */
export const generateClient = () => run('prisma', ['generate'], { PRISMA_SCHEMA_ENGINE_BINARY: process.execPath })

/** Builds, unless the last build was of these very sources. Types are checked by `npm run build` and `npm run typecheck`. */
export async function built({ generated = false } = {}) {
  const now = await fingerprint()
  if ((await readFile(stamp, 'utf8').catch(() => '')) === now) return
  const step = async (label, work) => {
    process.stderr.write(`${label} …`)
    const started = Date.now()
    await work()
    process.stderr.write(` ${((Date.now() - started) / 1000).toFixed(1)} s\n`)
  }
  if (!generated) await step('generating the database client', generateClient)
  await step('compiling the server', () => run('tsc', ['-p', 'tsconfig.build.json', '--noCheck', '--noResolve']))
  await step('bundling GraphiQL', () =>
    run('vite', ['build', '-c', 'src/edge/graphiql/vite.config.ts'], { NODE_ENV: 'production' }),
  )
  await writeFile(stamp, now)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await built()
