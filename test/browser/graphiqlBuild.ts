import { execFile } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

const project = join(import.meta.dirname, '../..')
const sources = join(project, 'src/edge/graphiql')
const output = join(project, 'dist/graphiql')

const modifiedAt = (path: string): number => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0

/** The built front-end's directory, built first when it is missing or older than what it is made of. */
export async function builtGraphiql(): Promise<string> {
  const inputs = [join(project, 'package-lock.json'), ...readdirSync(sources).map((name) => join(sources, name))]
  if (modifiedAt(join(output, 'index.html')) < Math.max(...inputs.map(modifiedAt))) {
    const vite = join(project, 'node_modules/vite/bin/vite.js')
    // An empty environment: with the test runner's NODE_ENV, React would be built for development.
    await promisify(execFile)(process.execPath, [vite, 'build', '-c', join(sources, 'vite.config.ts')], {
      cwd: project,
      env: {},
    })
  }
  return output
}
