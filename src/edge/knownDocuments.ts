import { Kind, visit, type DocumentNode, type GraphQLSchema, type OperationDefinitionNode } from 'graphql'
import { LRUCache } from 'lru-cache'
import { analyse, operationOf, type Analysis } from '../graphql/analysis.ts'
import { introspects } from '../graphql/visibility.ts'

/** Variables that say how large a page is or where it begins: all that the analysis reads of them. */
function pagingVariables(document: DocumentNode): string[] {
  const found = new Set<string>()
  const paging = new Set(['first', 'last', 'after', 'before'])
  visit(document, {
    Argument({ name, value }) {
      if (paging.has(name.value) && value.kind === Kind.VARIABLE) found.add(value.name.value)
    },
  })
  return [...found].sort()
}

/** A document that passed every limit and validation rule, with what is found out about it once. */
export class KnownDocument {
  readonly document: DocumentNode
  readonly introspects: boolean
  readonly #paging: readonly string[]
  readonly #operations = new Map<string | undefined, OperationDefinitionNode>()
  // By operation and by the values of its paging variables, which are few where programs call and bounded where they are not.
  readonly #analyses = new LRUCache<string, Analysis>({ max: 32 })

  constructor(document: DocumentNode) {
    this.document = document
    this.introspects = introspects(document)
    this.#paging = pagingVariables(document)
  }

  /** The operation that a request means. Throws `BAD_USER_INPUT` where that is not clear. */
  operation(name: string | undefined): OperationDefinitionNode {
    const known = this.#operations.get(name)
    if (known) return known
    const operation = operationOf(this.document, name)
    this.#operations.set(name, operation)
    return operation
  }

  /** What the operation requires and costs with these variables; throws where a page is out of bounds or the cost too high. */
  analyse(schema: GraphQLSchema, name: string | undefined, variables: Readonly<Record<string, unknown>>): Analysis {
    const key = JSON.stringify([name, ...this.#paging.map((each) => variables[each])])
    const known = key.length < 1000 ? this.#analyses.get(key) : undefined
    if (known) return known
    const analysis = analyse(schema, this.document, name, variables)
    if (key.length < 1000) this.#analyses.set(key, analysis)
    return analysis
  }
}

const longestText = 20_000

/** Documents by their text: parsed, validated and held to every limit once. Only what has passed all of it comes in. */
export class KnownDocuments {
  readonly #byText = new LRUCache<string, KnownDocument>({ max: 2000, maxSize: 8_000_000, sizeCalculation: (_known, text) => text.length }) // prettier-ignore

  find(text: string): KnownDocument | undefined {
    return this.#byText.get(text)
  }

  /** For a document that is about to be executed, and so has passed. */
  keep(text: string, document: DocumentNode): KnownDocument {
    const known = this.#byText.get(text) ?? new KnownDocument(document)
    if (text.length > 0 && text.length <= longestText) this.#byText.set(text, known)
    return known
  }
}
