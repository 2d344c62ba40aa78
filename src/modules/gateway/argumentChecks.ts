import { Ajv, type ErrorObject, type Options, type ValidateFunction } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { LRUCache } from 'lru-cache'
import { createHash } from 'node:crypto'
import { createContext, Script } from 'node:vm'
import type { InputIssue } from '../../kernel/errors.ts'

/** Whoever runs an upstream writes its schemas: they are bounded in size and in time, and can reach nothing outside. */
const maxSchemaBytes = 128 * 1024
const maxDepth = 40
const checkMs = 50
/** Once for each schema; generous, since one that is given up for a busy moment stays given up. */
const compileMs = 500
/** How often a schema may take too long before it is left to its own upstream, and for how long. */
const patience = 3
const restMs = 600_000

const options: Options = {
  strict: false,
  // What JSON Schema says of a schema itself is its author's affair; what cannot be compiled is not used.
  validateSchema: false,
  validateFormats: false,
  ownProperties: true,
  logger: false,
  addUsedSchema: false,
}

/** Keywords whose cost has little to do with the size of schema and value: references, expressions, pairs of items. */
const costly = new Set(['$ref', '$dynamicRef', '$recursiveRef', 'pattern', 'patternProperties', 'uniqueItems'])

type Survey = { bounded: boolean; costly: boolean }

function survey(value: unknown, depth = 0): Survey {
  if (typeof value !== 'object' || value === null) return { bounded: true, costly: false }
  if (depth > maxDepth) return { bounded: false, costly: true }
  let found = false
  for (const [key, inner] of Object.entries(value)) {
    const { bounded, costly: below } = survey(inner, depth + 1)
    if (!bounded) return { bounded, costly: true }
    found ||= below || costly.has(key)
  }
  return { bounded: true, costly: found }
}

const stage: { task: (() => void) | undefined } = { task: undefined }
createContext(stage)
const script = new Script('task()')

/** Runs work that must not hold up everybody else: it is ended when its time is over, wherever it is. */
function within(ms: number, work: () => void): void {
  stage.task = work
  try {
    script.runInContext(stage, { timeout: ms })
  } finally {
    stage.task = undefined
  }
}

type Compiled = { check: ValidateFunction | undefined; costly: boolean; strikes: number; restsUntil: number }

const uncheckable: Compiled = { check: undefined, costly: false, strikes: 0, restsUntil: 0 }

function compile(text: string): Compiled {
  if (text.length > maxSchemaBytes) return uncheckable
  // A copy; a promise instead of a verdict would let everything pass.
  const { $schema: dialect, $async: _, ...schema } = JSON.parse(text) as Record<string, unknown>
  const { bounded, costly: dear } = survey(schema)
  if (!bounded) return uncheckable
  const old = typeof dialect === 'string' && /draft-0[4-7]/.test(dialect)
  let check: ValidateFunction | undefined
  try {
    // References to other documents are errors here: nothing is ever fetched.
    within(compileMs, () => (check = (old ? new Ajv(options) : new Ajv2020(options)).compile(schema)))
  } catch {
    return uncheckable
  }
  return { check, costly: dear, strikes: 0, restsUntil: 0 }
}

const unescaped = (part: string): string => part.replaceAll('~1', '/').replaceAll('~0', '~')

function issueOf({ instancePath, params, message }: ErrorObject): InputIssue {
  const path = instancePath.split('/').slice(1).map(unescaped)
  const named = (params as Record<string, unknown>)['missingProperty'] ?? (params as Record<string, unknown>)['additionalProperty'] // prettier-ignore
  return {
    path: ['arguments', ...path, ...(typeof named === 'string' ? [named] : [])].slice(0, maxDepth),
    message: (message ?? 'not what the tool expects').slice(0, 200),
  }
}

/** Holds the arguments of calls against the input schemas of their tools, before an upstream sees them. */
export class ArgumentChecks {
  readonly #now: () => number
  readonly #onWarning: ((reason: string) => void) | undefined
  // A listed tool's schema is one object for as long as the list is fresh; the same text elsewhere is compiled once.
  readonly #byObject = new WeakMap<object, Compiled>()
  readonly #byText = new LRUCache<string, Compiled>({ max: 1000, maxSize: 16 * 2 ** 20, sizeCalculation: () => 8192 })

  constructor(now: () => number, onWarning?: (reason: string) => void) {
    this.#now = now
    this.#onWarning = onWarning
  }

  /** What is wrong with these arguments, with its path; nothing where they fit, or where the schema is of no use. */
  issues(schema: unknown, args: unknown): InputIssue[] {
    if (typeof schema !== 'object' || schema === null) return []
    const compiled = this.#compiled(schema)
    const { check } = compiled
    if (!check || compiled.restsUntil > this.#now()) return []
    let fits = true
    try {
      const work = (): void => void (fits = check(args))
      if (compiled.costly) within(checkMs, work)
      else work()
    } catch {
      // Endless recursion ends in an exception, everything else that is slow in the watch.
      if (++compiled.strikes % patience === 0) {
        compiled.restsUntil = this.#now() + restMs
        this.#onWarning?.('a tool’s input schema takes too long to check and is not used for a while')
      }
      return [{ path: ['arguments'], message: 'could not be checked in time' }]
    }
    return fits ? [] : (check.errors ?? []).map(issueOf)
  }

  #compiled(schema: object): Compiled {
    const known = this.#byObject.get(schema)
    if (known) return known
    const text = JSON.stringify(schema)
    const hash = createHash('sha256').update(text).digest('base64')
    const compiled = this.#byText.get(hash) ?? compile(text)
    if (!compiled.check) this.#onWarning?.('a tool’s input schema cannot be used to check arguments')
    this.#byText.set(hash, compiled)
    this.#byObject.set(schema, compiled)
    return compiled
  }
}
