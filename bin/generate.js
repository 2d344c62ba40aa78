#!/usr/bin/env node
// Generates the Prisma client, the Pothos types, schema.graphql and the typed documents of the tests.
import { run } from './build.js'

// `prisma generate` wants an engine that it does not use; any executable keeps it from downloading one.
await run('prisma', ['generate'], { PRISMA_SCHEMA_ENGINE_BINARY: process.execPath })
if (!process.argv.includes('--client-only')) {
  await run('tsx', ['src/printSchema.ts'])
  await run('tsx', ['src/printConfiguration.ts'])
  await run('graphql-codegen', ['--config', 'codegen.ts'])
}
