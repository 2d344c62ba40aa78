import type { CpuMeter } from './cpu.ts'
import type { Slice as Answered, Target } from './load.ts'
import type { startLoad } from './servers.ts'

/** One line of the table: what was asked of whom. */
export type Contender = { name: string; note: string; target: Target; pid: number }

/** CPU milliseconds of one answer, in the server's process and in PostgreSQL's. */
export type Slice = Answered & { processMs: number; postgresMs: number }

export type Measured = Contender & { slices: Slice[] }

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 ? (sorted[middle] ?? Number.NaN) : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2 // prettier-ignore
}

/**
 * Every contender in turn, round after round, each other round backwards: what else the machine is doing meets all of
 * them alike, and a ratio is taken within a round.
 */
export async function measure(
  load: ReturnType<typeof startLoad>,
  cpu: CpuMeter,
  contenders: readonly Contender[],
  options: { rounds: number; sliceMs: number; warmUpMs: number; connections: number },
  progress: (done: number, all: number, line: string) => void,
): Promise<Measured[]> {
  const measured = contenders.map((contender): Measured => ({ ...contender, slices: [] }))
  const all = options.rounds * measured.length
  let done = 0
  for (const { target, name } of measured) {
    // Compilers that work at run time have done so after some thousand answers, however slow the machine.
    let answers = 0
    for (const until = Date.now() + options.warmUpMs; answers < 3000 && Date.now() < until;)
      answers += (await load.slice(target, options.connections, 1000)).answers
    progress(0, all, `${name}: warm after ${answers} answers`)
  }
  for (let round = 0; round < options.rounds; round += 1)
    for (const each of round % 2 ? [...measured].reverse() : measured) {
      const before = await cpu.read(each.pid)
      const slice = await load.slice(each.target, options.connections, options.sliceMs)
      const after = await cpu.read(each.pid)
      if (slice.failures) throw new Error(`${each.name}: ${slice.failures} of ${slice.answers} answers were no good ones: ${slice.failure}`) // prettier-ignore
      each.slices.push({
        ...slice,
        processMs: (after.process - before.process) / slice.answers,
        postgresMs: (after.postgres - before.postgres) / slice.answers,
      })
      progress((done += 1), all, `${each.name}: ${Math.round(slice.requestsPerSecond)}/s`)
    }
  return measured
}

/** The median over the rounds of one contender's figure divided by another's of the same round. */
export const ratio = (
  a: Measured,
  b: Measured,
  of: (slice: Slice) => number = ({ requestsPerSecond }) => requestsPerSecond,
): number => median(a.slices.map((slice, i) => of(slice) / of(b.slices[i] as Slice)))
