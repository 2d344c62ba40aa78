import type { Call } from '../../kernel/operation.ts'
import { sourceOf } from '../../kernel/source.ts'
import { throttle } from '../../kernel/throttle.ts'

const signUps = throttle('signUp', ({ signUpsPerSourcePerHour }) => ({
  limit: signUpsPerSourcePerHour,
  windowSeconds: 3600,
  // A flood of made-up accounts hurts; nobody who is here already is turned away.
  withoutStore: 'refuse',
}))

/** Counts an account that is about to be made. */
export async function guardSignUp({ platform, actor }: Call): Promise<void> {
  await signUps(platform)?.consume(sourceOf(actor.origin))
}
