/**
 * What is stored of an event that is not acknowledged yet, and what to do with it. Pure.
 *
 * Each event has a place of its own, so that two tabs never write the same one. Its text is
 *
 *     {"event_id":...}        ready to be sent
 *     1763642096789{...}      sent at that time by a page that may not live to hear the answer
 *     ~1763642096789{...}     watch time so far, noted at that time by a page that is still watched
 *
 * The collector knows an id again for `dedup_minutes` (10 by default). Within `DOUBT_MS` an event without an answer is therefore
 * sent again; later it is given up, because nearly all such events did arrive and would be counted twice.
 */

/** How long an event that was sent without an answer may be sent again. A minute less than what the collector knows again. */
export const DOUBT_MS = 9 * 60_000;
/** A watched page notes its watch time more often than this, also in the background (where timers run once a minute). */
export const SILENT_MS = 150_000;
/** The characters of one request; as UTF-8 they fit what browsers let outlive a page (64 KiB). */
const REQUEST_CHARS = 16_000;
/** An event may have so many. */
export const EVENT_CHARS = 2_000;

/** An event to send: its id and its JSON. */
export type Ready = [id: string, event: string];

/** What is to be done with a stored text: `""` is to leave it, `"doubt"` to give it up, otherwise the event to send. */
export function judge(text: string, now: number): string {
  const at = text.indexOf("{");
  const event = text.slice(at);
  if (at == 0) return event;
  const watched = text[0] == "~";
  const age = Math.abs(now - +text.slice(watched ? 1 : 0, at));
  if (watched) return age < SILENT_MS ? "" : event;
  return age < DOUBT_MS ? event : "doubt";
}

/** As many of the events, in the order of their ids, as one request takes. */
export function batch(events: readonly Ready[], most: number): Ready[] {
  let chars = 0;
  const sorted = [...events].sort(([a], [b]) => (a < b ? -1 : 1));
  return sorted.slice(0, most).filter(([, event]) => (chars += event.length) <= REQUEST_CHARS);
}
