/**
 * Watch time of one video. A watch sends two events, each once and with an id of its own:
 *
 * - its view, when watching begins (a player plays; without a player, the page is visible), which counts as a view;
 * - one `engaged` event with `watch_ms`, if it was watched for `engagedMs`, which counts as engaged and not as a view.
 *
 * Two events, because a view must not wait for the end of a watch that may never be told, and because a second view event, or a
 * second `engaged` one, would be counted. So the second is sent once, when the watch ends: `stop()`, the page is left, or it is
 * hidden while no player plays. Until then it is noted at each heartbeat; if the page dies without a word, another page of the origin
 * sends what was noted. What is watched after the event was sent is not told.
 */
import { newId } from "./id.js";
import type { Shelf } from "./shelf.js";

/** A watched page notes how long at least so often, in ms. */
const HEARTBEAT_MS = 5_000;
/** Timers of background pages run once a minute. A longer gap is a machine that slept: nobody watched. */
const LONGEST_GAP_MS = 65_000;

const MEDIA_EVENTS = ["playing", "pause", "waiting", "ended", "emptied"];

/** How long it was watched, as seen at single moments. */
export interface Clock {
  /** So long, in ms. */
  readonly total: number;
  /** Since when it is being watched, if it is. */
  readonly since: number | null;
}

/** The clock after a look at `now` (monotonic ms). Pure. */
export function look(clock: Clock, now: number, watched: boolean): Clock {
  const gained = clock.since === null ? 0 : Math.min(now - clock.since, LONGEST_GAP_MS);
  return { total: clock.total + gained, since: watched ? now : null };
}

/** What a watch does with what it sees. */
export interface Watched {
  readonly shelf: Shelf;
  readonly engagedMs: number;
  /** The view. */
  begin(): void;
  /** The event's members but for those that are known only later. */
  event(id: string): object;
  /** The event is complete. */
  end(id: string, event: object): void;
}

/** Watches; gives how long so far, the end of it, and what to call when the page is hidden or left. */
export function watching(player: HTMLMediaElement | null, on: Watched) {
  const id = newId();
  let clock: Clock = { total: 0, since: null };
  let begun = false;
  let noted = false;
  let over = false;

  const plays = () => (player ? !player.paused && !player.ended && player.readyState > 2 : document.visibilityState == "visible");
  const event = () => ({ ...on.event(id), ts: Date.now(), watch_ms: Math.round(clock.total), kind: "engaged" });

  const beat = () => {
    if (over) return;
    clock = look(clock, performance.now(), plays());
    if (clock.since !== null && !begun) {
      begun = true;
      on.begin();
    }
    // It slept so long that another page has sent what was noted.
    if (noted && on.shelf.get(id)?.[0] != "~") return close();
    if (clock.total >= on.engagedMs && clock.total) {
      noted = true;
      on.shelf.put(id, "~" + Date.now() + JSON.stringify(event()));
    }
  };
  const stop = () => {
    beat();
    if (over) return;
    close();
    if (noted) on.end(id, event());
  };
  const close = () => {
    over = true;
    clearInterval(timer);
    player && MEDIA_EVENTS.forEach((name) => player.removeEventListener(name, beat));
    removeEventListener("visibilitychange", beat, true);
  };

  const timer = setInterval(beat, HEARTBEAT_MS);
  player && MEDIA_EVENTS.forEach((name) => player.addEventListener(name, beat));
  addEventListener("visibilitychange", beat, true);
  beat();
  return {
    ms: () => Math.round(clock.total),
    stop,
    leave: (last: boolean) => {
      beat();
      if (noted && (last || !plays())) stop();
    },
  };
}
