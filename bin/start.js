#!/usr/bin/env node
import { built } from './build.js'

await built()
// Libraries check themselves at run time unless they are told that this is production.
process.env['NODE_ENV'] ??= 'production'
await import('../dist/main.js')
