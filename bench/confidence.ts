/** A ratio and the bounds between which it lies in 95 of 100 measurements like this one. */
export type Confidence = { ratio: number; lower: number; upper: number }

/** The 97.5th percentile of Student's t, by the expansion of Cornish and Fisher; within 0.1 % from five degrees on. */
function studentT(degrees: number): number {
  const z = 1.959964
  const g1 = (z ** 3 + z) / 4
  const g2 = (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96
  const g3 = (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384
  return z + g1 / degrees + g2 / degrees ** 2 + g3 / degrees ** 3
}

/** The geometric mean of ratios that were measured in turns, with its bounds: Student's t on their logarithms. */
export function confidence(ratios: readonly number[]): Confidence {
  if (ratios.length < 6) throw new Error('At least six ratios are needed for bounds that mean something.')
  const logs = ratios.map((ratio) => Math.log(ratio))
  const mean = logs.reduce((sum, log) => sum + log, 0) / logs.length
  const variance = logs.reduce((sum, log) => sum + (log - mean) ** 2, 0) / (logs.length - 1)
  const half = studentT(logs.length - 1) * Math.sqrt(variance / logs.length)
  return { ratio: Math.exp(mean), lower: Math.exp(mean - half), upper: Math.exp(mean + half) }
}
