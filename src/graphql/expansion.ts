import { Kind, type DocumentNode, type FragmentDefinitionNode, type SelectionSetNode } from 'graphql'
import { badInput } from '../kernel/errors.ts'

/** The most selections that a document may stand for once its fragments are written out. */
export const maxSelections = 10_000

/**
 * Refuses fragments that lead back to themselves, or that multiply: sixty lines, each of which spreads the next one
 * twice, stand for 2⁶⁰ fields, and whoever walks a document by its spreads never comes back. Each fragment is counted once.
 */
export function boundExpansion({ definitions }: DocumentNode): void {
  const fragments = new Map<string, FragmentDefinitionNode>()
  for (const node of definitions) if (node.kind === Kind.FRAGMENT_DEFINITION) fragments.set(node.name.value, node)
  const sizes = new Map<string, number | 'counting'>()

  const sizeOfFragment = (name: string): number => {
    const known = sizes.get(name)
    if (known === 'counting') throw badInput([{ path: ['query'], message: `fragment ${name} leads back to itself` }])
    if (known !== undefined) return known
    sizes.set(name, 'counting')
    const fragment = fragments.get(name)
    const size = fragment ? sizeOf(fragment.selectionSet) : 0
    sizes.set(name, size)
    return size
  }
  const sizeOf = ({ selections }: SelectionSetNode): number => {
    let size = 0
    for (const node of selections) {
      size += 1
      if (node.kind === Kind.FRAGMENT_SPREAD) size += sizeOfFragment(node.name.value)
      else if (node.selectionSet) size += sizeOf(node.selectionSet)
    }
    return size
  }

  for (const node of definitions) {
    const size = node.kind === Kind.OPERATION_DEFINITION ? sizeOf(node.selectionSet) : node.kind === Kind.FRAGMENT_DEFINITION ? sizeOfFragment(node.name.value) : 0 // prettier-ignore
    if (size > maxSelections)
      throw badInput([{ path: ['query'], message: `the document stands for more than ${maxSelections} selections` }])
  }
}
