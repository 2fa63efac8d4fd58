/** What an answer of the collector means for the events that were sent. Pure. */

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 60_000;

/** What to do now. */
export interface Verdict {
  /** Whether the events are settled: taken, or refused for good. */
  readonly settled: boolean;
  /** How many events a request has at most from now on. */
  readonly most: number;
  /** How long to wait before the next request, in ms. */
  readonly wait: number;
}

/**
 * The verdict on a request of `events` events.
 *
 * `status` is 0 if no answer came; `failures` are those in a row before this one; `random` is from 0 to 1. Waiting has full jitter
 * (Brooker 2015, "Exponential Backoff And Jitter") above what `Retry-After` asks for.
 */
export function verdict(status: number, retryAfter: string | null, events: number, failures: number, random: number): Verdict {
  if (status == 202) return { settled: true, most: Infinity, wait: 0 };
  // The body is at fault, or one of its events: smaller requests show which.
  if (/^4(00|13|15|22)$/.test("" + status)) return { settled: events < 2, most: Math.max(1, events >> 1), wait: 0 };
  const jitter = random * Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** failures);
  return { settled: false, most: Infinity, wait: (Number(retryAfter) * 1_000 || 0) + jitter };
}
