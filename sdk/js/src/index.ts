/**
 * Tallymark in the browser: sends views and watch time to a collector, loses none of them, and never gets in the way of the page.
 *
 * | module | holds |
 * |---|---|
 * | `id` | ids of events |
 * | `stored` | what is kept of an event, and what to do with it |
 * | `answer` | what an answer means: settled, or when to try again |
 * | `shelf` | where events are kept |
 * | `sender` | requests |
 * | `watch` | watch time |
 * | `script` | the script tag, `/t.js` |
 */
import { newId } from "./id.js";
import { sending } from "./sender.js";
import { shelved } from "./shelf.js";
import { watching } from "./watch.js";

/** Why events are lost, as far as the page can know. */
export type Loss =
  /** The collector has refused them for good (a video id that is too long, a body that it does not take). */
  | "refused"
  /** The event is too long. */
  | "too_large"
  /** There are more unsent events than `queueSize`; the oldest go. */
  | "queue_full"
  /** Sent when a page was left, and no page of the site came within 9 minutes to hear whether they arrived. Most of them did. */
  | "in_doubt";

/** Of a client. */
export interface Options {
  /** The collector, such as `https://views.example.com`. */
  readonly url: string;
  /** A public key (scope `write`, with the origins of your pages). */
  readonly key?: string | undefined;
  /** Whether nothing is sent or stored for those who say that they do not want to be tracked (Do Not Track, Global Privacy Control). */
  readonly respectDnt?: boolean | undefined;
  /** How long events wait for others, in ms: 1000. */
  readonly batchMs?: number | undefined;
  /** The most events of one request: 50. */
  readonly batchSize?: number | undefined;
  /** The most events that are kept until they are acknowledged: 1000. */
  readonly queueSize?: number | undefined;
  /** From which watch time on a viewer is engaged, in ms: 10000. */
  readonly engagedMs?: number | undefined;
  /** Is told of lost events. */
  readonly onLoss?: ((why: Loss, events: number) => void) | undefined;
}

/** What else is known of a view. */
export interface About {
  /** The space (channel) that the video belongs to. */
  readonly space?: string | undefined;
  /** Who views, if your page knows; nothing is made up. */
  readonly viewer?: string | undefined;
}

/** One watch of a video. */
export interface Watch {
  /** How long it was watched, in ms. */
  ms(): number;
  /** Ends it. */
  stop(): void;
}

/** A client. No method throws. */
export interface Tallymark {
  /** Counts a view. */
  view(video: string, about?: About): void;
  /**
   * Counts a view when it begins, and watch time: of a player while it plays, or of a video by its id while the page is visible.
   * A player's video is `about.video`, its attribute `data-video`, or its `id`.
   */
  watch(what: string | HTMLMediaElement, about?: About & { readonly video?: string | undefined }): Watch;
  /** Sends what waits now; resolves when that was tried. */
  flush(): Promise<void>;
}

/** Makes a client. Outside of a browser, and for those who do not want to be tracked (if that is respected), it does nothing. */
export function tallymark(options: Options): Tallymark {
  try {
    if (typeof document != "undefined" && !(options.respectDnt && refuses())) return client(options);
  } catch (why) {
    console.warn("tallymark counts nothing:", why);
  }
  return { view() {}, watch: () => IDLE, flush: async () => {} };
}

const IDLE: Watch = { ms: () => 0, stop() {} };

function refuses(): boolean {
  return navigator.doNotTrack == "1" || !!(navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl;
}

function client(options: Options): Tallymark {
  const base = options.url.replace(/\/+$/, "");
  const shelf = shelved(`tallymark ${base} `);
  const sender = sending(shelf, base, options);
  const watches = new Set<ReturnType<typeof watching>>();

  const event = (id: string, video: string, about?: About) => ({
    event_id: id,
    video_id: "" + video,
    ts: Date.now(),
    space_id: text(about?.space),
    viewer_id: text(about?.viewer),
  });
  const view = safe((video: string, about?: About) => {
    // A page that is only prepared, in case that somebody comes, is viewed when somebody does.
    if ((document as { prerendering?: boolean }).prerendering) {
      return document.addEventListener("prerenderingchange", () => view(video, about), { once: true });
    }
    const id = newId();
    sender.add(id, event(id, video, about));
  });
  const leave = (last: boolean) => {
    watches.forEach((watch) => watch.leave(last));
    sender.leave(last);
  };
  addEventListener("pagehide", safe(() => leave(true)));
  document.addEventListener("visibilitychange", safe(() => document.visibilityState == "hidden" && leave(false)));

  return {
    view,
    watch: (what, about) => {
      let running = IDLE;
      safe(() => {
        const player = typeof what == "string" ? null : what;
        const video = about?.video ?? (player ? player.dataset["video"] || player.id : (what as string));
        const watch = watching(player, {
          shelf,
          engagedMs: options.engagedMs ?? 10_000,
          begin: () => view(video, about),
          event: (id) => event(id, video, about),
          end: (id, whole) => sender.add(id, whole),
        });
        watches.add(watch);
        running = { ms: watch.ms, stop: safe(() => (watch.stop(), watches.delete(watch))) };
      })();
      return running;
    },
    flush: sender.flush,
  };
}

/** Ids that are numbers in the page are texts here. */
function text(id: unknown): string | undefined {
  return id == null ? undefined : "" + id;
}

/** The function, which no longer throws. */
function safe<A extends unknown[]>(run: (...args: A) => unknown): (...args: A) => void {
  return (...args) => {
    try {
      run(...args);
    } catch {}
  };
}
