import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import ts from 'typescript'

/** A test that proves something: its file under test/, and the title of it as the file writes it. */
export type Proof = readonly [file: string, title: string]

const heads = new Set(['it', 'test'])

/** The function that a call ends up at: `it` of `it(…)`, of `it.each(…)(…)` and of `it.skip(…)`, with what stands between. */
function headOf(expression: ts.Expression): { name: string; modifiers: string[] } {
  if (ts.isIdentifier(expression)) return { name: expression.text, modifiers: [] }
  if (ts.isCallExpression(expression)) return headOf(expression.expression)
  if (ts.isPropertyAccessExpression(expression)) {
    const { name, modifiers } = headOf(expression.expression)
    return { name, modifiers: [...modifiers, expression.name.text] }
  }
  return { name: '', modifiers: [] }
}

function textOf(node: ts.Node | undefined, source: ts.SourceFile): string | null {
  if (node && ts.isStringLiteralLike(node)) return node.text
  return node && ts.isTemplateExpression(node) ? node.getText(source).slice(1, -1) : null
}

/** The titles of the tests that a file holds and runs. Those that are skipped, in themselves or by what surrounds them, do not count. */
export async function titlesOf(file: string): Promise<Set<string>> {
  const text = await readFile(join(import.meta.dirname, '..', file), 'utf8')
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const titles = new Set<string>()
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node)) {
      const { name, modifiers } = headOf(node.expression)
      const counts = heads.has(name) || name === 'describe'
      if (counts && modifiers.some((modifier) => /^(skip|todo|fails|skipIf|runIf)$/.test(modifier))) return
      const title = textOf(node.arguments[0], source)
      if (heads.has(name) && title !== null && node.arguments.length > 1) titles.add(title)
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return titles
}

/** The proofs that no test of that name stands for. */
export async function missing(proofs: Iterable<Proof>): Promise<string[]> {
  const all = [...proofs]
  const files = new Map<string, Set<string>>()
  for (const file of new Set(all.map(([name]) => name))) files.set(file, await titlesOf(file).catch(() => new Set<string>())) // prettier-ignore
  return all.filter(([file, title]) => !files.get(file)?.has(title)).map((proof) => proof.join(': '))
}
