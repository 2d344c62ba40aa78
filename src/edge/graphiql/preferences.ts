const remembered = new Set(
  ['theme', 'visiblePlugin', 'docExplorerFlex', 'editorFlex', 'secondaryEditorFlex'].map((name) => `graphiql:${name}`),
)

/**
 * GraphiQL would write every operation, variable and header, its history included, to localStorage, and operations of this API
 * carry passwords and upstream tokens. Only the look of the page outlives it; all else lives as long as the document.
 */
export function createPreferences(durable: Storage): Storage {
  const fleeting = new Map<string, string>()
  const getItem = (key: string) => (remembered.has(key) ? durable.getItem(key) : (fleeting.get(key) ?? null))
  return {
    getItem,
    setItem: (key, value) => void (remembered.has(key) ? durable.setItem(key, value) : fleeting.set(key, value)),
    removeItem: (key) => void (remembered.has(key) ? durable.removeItem(key) : fleeting.delete(key)),
    clear() {
      fleeting.clear()
      for (const key of remembered) durable.removeItem(key)
    },
    key: (index) => [...fleeting.keys(), ...remembered][index] ?? null,
    get length() {
      return fleeting.size + [...remembered].filter((key) => durable.getItem(key) !== null).length
    },
  }
}
