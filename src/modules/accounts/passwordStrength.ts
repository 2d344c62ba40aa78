import type { ZxcvbnFactory } from '@zxcvbn-ts/core'
import { badInput } from '../../kernel/errors.ts'
import type { Secret } from '../../kernel/secret.ts'

/** Of 0 to 4, as zxcvbn counts: 3 withstands an offline attack on a slow hash for long. */
const leastScore = 3
// The estimate grows faster than the length. The beginning alone never looks stronger than the whole.
const judgedChars = 64

let estimator: Promise<ZxcvbnFactory> | null = null

/** Its list of leaked and common passwords comes with it; loaded when the first password is chosen, then kept. */
async function load(): Promise<ZxcvbnFactory> {
  const [{ ZxcvbnFactory }, { dictionary, adjacencyGraphs }] = await Promise.all([
    import('@zxcvbn-ts/core'),
    import('@zxcvbn-ts/language-common'),
  ])
  return new ZxcvbnFactory({ dictionary, graphs: adjacencyGraphs })
}

const reasons: Record<string, string> = {
  similarToCommon: 'is like one that many people use',
  common: 'is one that many people use',
  topTen: 'is one of the ten most used',
  topHundred: 'is one of the hundred most used',
  simpleRepeat: 'repeats a character',
  extendedRepeat: 'repeats a pattern',
  sequences: 'is a sequence',
  straightRow: 'is a row of keys',
  keyPattern: 'is a pattern of keys',
  dates: 'holds a date',
  recentYears: 'holds a year',
  userInputs: 'holds your name or address',
}

/** Refuses a password that an attacker would guess, knowing what everybody knows of its owner. */
export async function assertStrong(
  password: Secret,
  about: readonly string[],
  path: (string | number)[] = ['password'],
): Promise<void> {
  const { check } = await (estimator ??= load()).then((factory) => ({ check: factory.check.bind(factory) }))
  const known = about
    .flatMap((text) => [text, ...text.split('@'), ...text.split(/[^\p{L}\p{N}]+/u)])
    .filter((text) => text.length > 2)
  const { score, feedback } = check(password.reveal().slice(0, judgedChars), ['mcp', 'platform', ...known])
  if (score >= leastScore) return
  const reason = reasons[feedback.warning ?? ''] ?? 'is easy to guess'
  throw badInput([{ path, message: `this password ${reason}; several unrelated words make a good one` }])
}
