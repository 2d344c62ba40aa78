const reversed = (text: string): string => [...text].reverse().join('')

/** Base64 of a text wherever it may stand in a longer one: three alignments, without the letters that its neighbours share. */
function base64Of(bytes: Buffer): string[] {
  return [0, 1, 2].map((offset) => {
    const text = Buffer.concat([Buffer.alloc(offset), bytes])
      .toString('base64')
      .replace(/=+$/, '')
    return text.slice(offset === 0 ? 0 : offset + 1, -1)
  })
}

/** How a secret could stand in the clear, in lower case: as it is, in base64, base64url and hexadecimal, each read from either end. */
export function formsOf(secret: string | Buffer): string[] {
  const bytes = Buffer.from(secret)
  const turned = Buffer.from([...bytes].reverse())
  const plain = [bytes, turned].flatMap((each) => {
    const base64 = base64Of(each)
    return [each.toString('latin1'), each.toString('hex'), ...base64, ...base64.map((text) => text.replaceAll('+', '-').replaceAll('/', '_'))] // prettier-ignore
  })
  return [...new Set([...plain, ...plain.map(reversed)].map((text) => text.toLowerCase()))]
}
