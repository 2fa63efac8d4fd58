/**
 * The script tag, served by the collector as `/t.js`:
 *
 *     <script async src="https://views.example.com/t.js" data-key="tm_..." data-video="v1"></script>
 *
 * `data-video` counts a view of the page; with `data-watch` its watch time too (`data-watch="video"`: of the player that this CSS
 * selector finds). `data-space`, `data-viewer`, `data-url` and `data-respect-dnt` are the options of these names. Scripts of the page find
 * the client as `tallymark`: `tallymark.view("v2")`; and make others with `tallymark({ url })`.
 */
import { tallymark } from "./index.js";

const tag = document.currentScript as HTMLScriptElement | null;
const { url, key, video, space, viewer, watch, respectDnt } = tag?.dataset ?? {};
const client = tallymark({
  // Where the script came from.
  url: url ?? (tag?.src ?? "").replace(/\/t\.js.*/, ""),
  key,
  respectDnt: respectDnt !== undefined && respectDnt != "false",
});
(window as unknown as { tallymark: unknown }).tallymark = Object.assign(tallymark.bind(null), client);

const begin = () => {
  const about = { space, viewer };
  if (watch === undefined) video && client.view(video, about);
  else {
    const player = watch && document.querySelector<HTMLMediaElement>(watch);
    if (player || video) client.watch(player || video!, { ...about, video });
  }
};
if (watch && document.readyState == "loading") addEventListener("DOMContentLoaded", begin);
else begin();
