/**
 * Sends what is on the shelf. While the page is used, by `fetch` in batches, one page of the origin at a time (a Web Lock), and an
 * event leaves the shelf with its acknowledgement. When the page is hidden or left, what this page made goes out at once.
 *
 * Requests have no headers of their own and a text body, so that browsers ask nothing beforehand (no CORS preflight).
 */
import { verdict } from "./answer.js";
import type { Loss, Options } from "./index.js";
import type { Shelf } from "./shelf.js";
import { EVENT_CHARS, type Ready, batch, judge } from "./stored.js";

/** Half a minute without an answer is none. */
const ANSWER_MS = 30_000;

/** Sends. */
export interface Sender {
  /** Takes an event. */
  add(id: string, event: object): void;
  /** Sends all that can be sent now; resolves when it is settled, or was tried. */
  flush(): Promise<void>;
  /** The page is hidden, or (`last`) left: it may never run again, so nothing that it does now may wait. */
  leave(last: boolean): void;
}

/** The sender of what is on `shelf`, to the collector at `base`. */
export function sending(shelf: Shelf, base: string, options: Options): Sender {
  const batchSize = options.batchSize ?? 50;
  /** Events made by this page. */
  const own = new Set<string>();
  /** Events in requests that have no answer yet. */
  const flying = new Set<string>();
  let failures = 0;
  let most = batchSize;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let due = Infinity;
  let draining: Promise<void> | undefined;
  /** Whether somebody asked for a flush since the shelf was last looked at. */
  let again = false;

  const lose = (why: Loss, events: number) => {
    try {
      options.onLoss?.(why, events);
    } catch {}
  };

  const offline = () => navigator.onLine === false;

  /** The sender's clock goes with each attempt, so that the collector can correct the times of events. */
  const url = () => `${base}/v1/events?sent_at=${Date.now()}${options.key ? "&key=" + encodeURIComponent(options.key) : ""}`;

  const plan = (wait: number) => {
    if (Date.now() + wait >= due) return;
    clearTimeout(timer);
    due = Date.now() + wait;
    timer = setTimeout(flush, wait);
  };

  const flush = (): Promise<void> => {
    clearTimeout(timer);
    due = Infinity;
    again = true;
    return (draining ??= alone(drain)
      .catch(() => {})
      .then(() => {
        draining = undefined;
        return again && !failures ? flush() : undefined;
      }));
  };

  /** While no other page of the origin does. Where there are no locks, or none to be had in time, all the same: what is sent twice is counted once. */
  const alone = (run: () => Promise<void>): Promise<void> => {
    const signal = AbortSignal.timeout?.(2 * ANSWER_MS);
    return navigator.locks?.request("tallymark " + base, signal ? { signal } : {}, run).then(() => {}, run) ?? run();
  };

  const drain = async () => {
    let events: Ready[];
    do {
      again = false;
      events = batch(sendable(), most);
    } while (events.length && !offline() && (await post(events)));
  };

  const sendable = () => {
    const found: Ready[] = [];
    for (const id of shelf.ids()) {
      const text = flying.has(id) ? "" : shelf.get(id);
      const event = text && judge(text, Date.now());
      if (event == "doubt") {
        shelf.remove(id);
        lose("in_doubt", 1);
      } else if (event) found.push([id, event]);
    }
    return found;
  };

  /** One request, which begins before this returns; whether its events are settled. If not, the next is planned. */
  const post = async (events: Ready[]): Promise<boolean> => {
    events.forEach(([id]) => flying.add(id));
    let status = 0;
    let after: string | null = null;
    let refused = 1;
    try {
      const signal = AbortSignal.timeout?.(ANSWER_MS) ?? null;
      const answer = await fetch(url(), { method: "POST", body: body(events), keepalive: true, credentials: "omit", signal });
      status = answer.status;
      after = answer.headers.get("Retry-After");
      if (status == 202) refused = (await answer.json()).rejected_total;
    } catch {}
    const now = verdict(status, after, events.length, failures, Math.random());
    failures = now.wait ? failures + 1 : 0;
    most = Math.min(now.most, batchSize);
    for (const [id, event] of events) {
      flying.delete(id);
      if (now.settled) {
        shelf.remove(id);
        own.delete(id);
        // Unless another page has settled it meanwhile.
      } else if (shelf.get(id)) shelf.put(id, event);
    }
    if (!now.settled) {
      // Whatever was planned meanwhile knew nothing of this.
      due = Infinity;
      plan(now.wait);
    } else if (refused) lose("refused", refused);
    return now.settled;
  };

  addEventListener("online", () => {
    failures = 0;
    plan(0);
  });
  // Back from the browser's cache of pages: what was sent when it was left may have no answer.
  addEventListener("pageshow", () => plan(0));
  if (shelf.ids().length) plan(0);

  return {
    add(id, event) {
      const text = JSON.stringify(event);
      if (text.length > EVENT_CHARS) return lose("too_large", 1);
      const ids = shelf.ids().sort();
      const over = ids.length + 1 - (options.queueSize ?? 1_000);
      if (over > 0) {
        ids.slice(0, over).forEach(shelf.remove);
        lose("queue_full", over);
      }
      shelf.put(id, text);
      own.add(id);
      if (!failures) plan(options.batchMs ?? 1_000);
    },
    flush,
    leave(last) {
      /** The event, if it is ready and nobody has sent it. */
      const ready = (id: string): Ready[] => {
        const text = shelf.get(id);
        return text?.[0] == "{" ? [[id, text]] : [];
      };
      const doubt = ([id, event]: Ready) => shelf.put(id, Date.now() + event);
      [...flying].flatMap(ready).forEach(doubt);
      const waiting = [...own].filter((id) => !flying.has(id)).flatMap(ready);
      const events = batch(waiting, batchSize);
      if (!events.length || offline()) return;
      // A page that is only hidden mostly lives to hear the answer.
      if (!last && "keepalive" in Request.prototype) void post(events);
      else if (!navigator.sendBeacon(url(), body(events))) return;
      events.forEach(doubt);
    },
  };
}

function body(events: Ready[]): string {
  return `[${events.map(([, event]) => event)}]`;
}
