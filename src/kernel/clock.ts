/** The time, injected so that expiry, lockout and rotation can be tested without waiting. */
export type Clock = () => Date

export const systemClock: Clock = () => new Date()
