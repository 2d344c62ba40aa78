#!/usr/bin/env node
// Generates the Prisma client, the Pothos types, schema.graphql and the typed documents of the tests; with --build, beside a
// build of what the client is part of.
import { built, generateClient, run } from './build.js'

async function documents() {
  await run('tsx', ['src/printSchema.ts'])
  await run('graphql-codegen', ['--config', 'codegen.ts'])
}

await generateClient()
if (!process.argv.includes('--client-only'))
  await Promise.all([
    documents(),
    run('tsx', ['src/printConfiguration.ts']),
    process.argv.includes('--build') ? built({ generated: true }) : undefined,
  ])
