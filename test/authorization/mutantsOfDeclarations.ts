import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import ts from 'typescript'

/** One change of the source that opens a door, and the tests that ought to notice. */
export type Mutant = {
  kind:
    | 'rule'
    | 'part of a rule'
    | 'ownership'
    | 'check'
    | 'policy'
    | 'vault'
    | 'at rest'
    | 'hashing'
    | 'limits'
    | 'log'
    | 'files'
  name: string
  file: string
  change: (text: string) => string
  tests: readonly string[]
  /** Caught by a test that fails alone: what does not compile, or does not start, shows nothing about the tests. */
  named?: boolean
}

const printed = 'test/authorization/printed.test.ts'
const everybody =
  '({ public: true, platform: false, scopes: [], role: null, stepUp: false, row: null, mask: 0 } as never)'

type Found = { node: ts.Node; kind: Mutant['kind']; replacement: string; what: string }

/** Rules of fields and operations, and each part of one that is joined of several. */
function* rulesIn(source: ts.SourceFile): Generator<Found> {
  const text = (node: ts.Node): string => node.getText(source)
  const visit = function* (node: ts.Node): Generator<Found> {
    if (ts.isPropertyAssignment(node) && ['rule', 'requires'].includes(text(node.name)) && !/^(inherited|isPublic)$/.test(text(node.initializer)))
      yield { node: node.initializer, kind: 'rule', replacement: everybody, what: `${text(node.name)}: ${text(node.initializer)}` }
    if (ts.isCallExpression(node) && text(node.expression) === 'allOf')
      for (const dropped of node.arguments) {
        const rest = node.arguments.filter((each) => each !== dropped).map(text)
        yield { node, kind: 'part of a rule', replacement: rest.length > 1 ? `allOf(${rest.join(', ')})` : (rest[0] ?? ''), what: `${text(node)} without ${text(dropped)}` }
      }
    for (const child of node.getChildren(source)) yield* visit(child)
  } // prettier-ignore
  yield* visit(source)
}

/** What each model's filter is made of: gone as a whole, and always the wider of two. */
function* ownershipIn(source: ts.SourceFile): Generator<Found> {
  const text = (node: ts.Node): string => node.getText(source)
  const visit = function* (node: ts.Node): Generator<Found> {
    if (ts.isPropertyAssignment(node) && ts.isArrowFunction(node.initializer)) {
      const { body } = node.initializer
      yield { node: node.initializer, kind: 'ownership', replacement: '() => ({})', what: `${text(node.name)} is everybody’s` } // prettier-ignore
      const inner = ts.isParenthesizedExpression(body) ? body.expression : body
      if (ts.isConditionalExpression(inner)) {
        const { whenTrue, whenFalse } = inner
        const wider =
          text(whenFalse).length > text(whenTrue).length || text(whenFalse) === 'null' ? whenTrue : whenFalse
        yield { node: inner, kind: 'ownership', replacement: text(wider).startsWith('{') ? `(${text(wider)})` : text(wider), what: `${text(node.name)} whatever the ${text(inner.condition)}` } // prettier-ignore
      }
    }
    for (const child of node.getChildren(source)) yield* visit(child)
  }
  yield* visit(source)
}

const mutantAt = (file: string, source: ts.SourceFile, { node, kind, replacement, what }: Found, tests: string[]): Mutant => {
  const [start, end] = [node.getStart(source), node.getEnd()]
  const { line } = source.getLineAndCharacterOfPosition(start)
  return { kind, name: `${file}:${line + 1}  ${what}`, file, change: (text) => text.slice(0, start) + replacement + text.slice(end), tests }
} // prettier-ignore

const cut = (file: string, what: string, tests: string[], instead = ''): Mutant => ({
  kind: 'check',
  name: `${file} without ${what}`,
  file,
  change: (text) => {
    if (!text.includes(what)) throw new Error(`${file} does not hold ${what}: say what it holds now.`)
    return text.replace(what, instead)
  },
  tests,
})

/** The places that enforce what is declared. */
const checks: Mutant[] = [
  cut('src/kernel/operation.ts', 'if (error) {', ['test/apiKeys/lifecycle.test.ts'], 'if (error && row === null) {'),
  cut('src/kernel/operation.ts', "await recordDenial(call, name, refused.error, refused.target)", ['test/authorization/otherPeoplesRows.test.ts'], ';'), // prettier-ignore
  cut('src/kernel/rule.ts', '|| !permitsRow(actor, rule, row)', ['test/authorization/otherPeoplesRows.test.ts']),
  cut('src/kernel/rule.ts', 'if (!isOthers || (others && holds(actor, others))) return null', ['test/authorization/otherPeoplesRows.test.ts'], 'return null'), // prettier-ignore
  cut('src/kernel/rule.ts', ' && !gaveFactor(actor)', ['test/authorization/otherPeoplesRows.test.ts']),
  cut('src/kernel/ownership.ts', 'scopes.includes(scope) && gaveFactor(member)', ['test/authorization/agreement.test.ts'], 'scopes.includes(scope)'), // prettier-ignore
  cut('src/kernel/ownership.ts', "(member.role !== 'ORG_ADMIN' || gaveFactor(member))", ['test/authorization/agreement.test.ts'], 'true'), // prettier-ignore
  cut('src/edge/news.ts', 'asOf(actor, platform.clock())', ['test/edge/news.test.ts'], 'actor'),
  cut('src/kernel/rule.ts', ' && (rule.row.permits as (actor: Member, row: unknown) => boolean)(actor, row)', ['test/authorization/denial.test.ts']), // prettier-ignore
  cut('src/kernel/rule.ts', 'scopesMask(rule.scopes) |', ['test/authorization/denial.test.ts']),
  cut('src/kernel/rule.ts', ' | freshMfaBit', ['test/authorization/credentials.test.ts']),
  cut('src/kernel/database/owned.ts', 'const own = filterOf(model, actor)', ['test/authorization/agreement.test.ts'], 'const own = {}'), // prettier-ignore
] // prettier-ignore

export async function declarationMutants(root: string): Promise<Mutant[]> {
  const parse = async (file: string): Promise<ts.SourceFile> =>
    ts.createSourceFile(file, await readFile(join(root, file), 'utf8'), ts.ScriptTarget.Latest, true)
  const entries = await readdir(join(root, 'src/modules'), { recursive: true })
  const modules = entries.filter((file) => file.endsWith('.ts')).map((file) => join('src/modules', file))
  const found: Mutant[] = []
  for (const file of modules.sort()) {
    const source = await parse(file)
    for (const each of rulesIn(source)) found.push(mutantAt(file, source, each, [printed]))
  }
  const ownership = 'src/kernel/ownership.ts'
  const source = await parse(ownership)
  for (const each of ownershipIn(source)) found.push(mutantAt(ownership, source, each, ['test/authorization/agreement.test.ts'])) // prettier-ignore
  return [...found, ...checks]
}
