// The typings of pg leave this file out; the driver itself maps every bound value through it.
declare module 'pg/lib/utils.js' {
  export function prepareValue(value: unknown): string | Uint8Array | null
}
