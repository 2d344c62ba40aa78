/**
 * A message of the language without the names that it offers. graphql-js suggests fields, types, arguments, inputs and
 * values that are near to what was written, and so would spell out to anybody what only others may use.
 */
export const withoutSuggestions = (message: string): string => message.replace(/ ?Did you mean [\s\S]*$/, '')
