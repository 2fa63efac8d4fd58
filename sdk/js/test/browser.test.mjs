// The package and the script in a real Chromium, against a real collector; what it counted is asked of its API. Needs
// TALLYMARK_URL (a collector without data of others, on this machine) and CHROMIUM (the browser's path). With KILL_COLLECTOR, whoever
// runs this kills the collector when there is a file of that name, starts it again, and removes the file.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import puppeteer from "puppeteer-core";

import { FAULTS, site } from "./site.mjs";

const { TALLYMARK_URL: collector, CHROMIUM: executablePath, KILL_COLLECTOR: kill } = process.env;
const PATIENCE_MS = 40_000;
const CHROMIUM = { executablePath, headless: true, args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage"] };

let browser;
let front;
/** May do everything; it never reaches a page. */
let admin;
/** For the pages of `front`. */
let key;
let context;
/** Errors that came up in pages. */
const errors = [];

before(async () => {
  browser = await puppeteer.launch(CHROMIUM);
  front = await site(collector);
  admin = await made({ name: "tests", scopes: ["admin"] });
  key = await made({ name: "pages", scopes: ["write"], public: true, origins: [front.origin] });
});

after(async () => {
  await browser?.close();
  front?.close();
});

afterEach(async () => {
  front.release();
  front.retryAfter = undefined;
  await context?.close();
  context = undefined;
  assert.deepEqual(errors.splice(0), [], "the page saw errors");
});

function authorized() {
  return admin ? { authorization: `Bearer ${admin}` } : {};
}

/** A new key. */
async function made(wanted) {
  const headers = { "content-type": "application/json", ...authorized() };
  const answer = await fetch(`${collector}/v1/keys`, { method: "POST", headers, body: JSON.stringify(wanted) });
  if (answer.status === 404) return undefined;
  const text = await answer.text();
  assert.ok(answer.ok, `${answer.status} ${text}`);
  return JSON.parse(text).token;
}

async function asked(path) {
  const answer = await fetch(collector + path, { headers: authorized() });
  assert.equal(answer.status, 200, `${path}: ${answer.status}`);
  return answer.json();
}

async function until(what, done) {
  const begun = Date.now();
  for (;;) {
    const found = await done();
    if (found) return found;
    assert.ok(Date.now() - begun < PATIENCE_MS, `waited in vain until ${what}`);
    await new Promise((next) => setTimeout(next, 20));
  }
}

/** What is counted of a video when everything that is in the log now is counted. */
async function counts(video) {
  const ends = (await asked("/v1/status")).sources.map((source) => source.end);
  await until("all is counted", async () => {
    const { sources } = await asked("/v1/status");
    return sources.every((source, n) => (source.checkpoint?.next_offset ?? 0) >= ends[n]);
  });
  const total = async (metric) => {
    const range = "start=2026-01-01T00:00:00Z&end=2100-01-01T00:00:00Z&step=all";
    return (await asked(`/v1/videos/${video}/views?${range}&metric=${metric}`)).total;
  };
  return { views: await total("gross"), engaged: await total("engaged") };
}

/** Waits until nothing is left to be sent of what pages of the site have stored. */
async function settled(page) {
  await until("everything is sent", () => page.evaluate(() => !Object.keys(localStorage).some((name) => name.startsWith("tallymark "))));
}

async function tab(address, before) {
  context ??= await browser.createBrowserContext();
  const page = await context.newPage();
  page.on("pageerror", (error) => errors.push(String(error)));
  if (before) await page.evaluateOnNewDocument(before);
  await page.goto(address);
  return page;
}

/** A page with a client as `t`, by the package; `about` goes among its options. */
function client(path, about = "", html = "") {
  return front.page(
    path,
    `${html}<script type="module">
      import { tallymark } from "/dist/index.js";
      window.lost = [];
      window.t = tallymark({ url: "${front.origin}", key: ${JSON.stringify(key)}, onLoss: (...what) => lost.push(what), ${about} });
    </script>`,
  );
}

/** The script tag. */
function script(attributes, async = "") {
  return `<script ${async} src="/t.js" ${key ? `data-key="${key}"` : ""} ${attributes}></script>`;
}

/** A silent sound of so many seconds. */
function silence(seconds) {
  const rate = 8_000;
  const data = Buffer.alloc(44 + rate * seconds, 128);
  data.write("RIFF");
  data.writeUInt32LE(36 + rate * seconds, 4);
  data.write("WAVEfmt ", 8);
  data.writeUInt32LE(16, 16);
  data.writeUInt16LE(1, 20);
  data.writeUInt16LE(1, 22);
  data.writeUInt32LE(rate, 24);
  data.writeUInt32LE(rate, 28);
  data.writeUInt16LE(1, 32);
  data.writeUInt16LE(8, 34);
  data.write("data", 36);
  data.writeUInt32LE(rate * seconds, 40);
  return `data:audio/wav;base64,${data.toString("base64")}`;
}

test("the script tag counts one view for each load", async () => {
  const page = await tab(front.page("/tag", script('data-video="tag" data-space="s"', "async")));
  for (let load = 0; load < 4; load++) {
    await settled(page);
    await page.reload();
  }
  await page.waitForFunction(() => window.tallymark);
  await settled(page);
  assert.deepEqual(await counts("tag"), { views: 5, engaged: 0 });
  assert.ok(front.sent("tag").every((event) => event.space_id === "s" && event.viewer_id === undefined));
  assert.deepEqual(await page.cookies(), []);
});

test("scripts of the page use the tag's client, and make others", async () => {
  const page = await tab(front.page("/tag-api", script("")));
  await page.evaluate(
    async (url, key) => {
      tallymark.view("tag-api", { viewer: "u1" });
      await tallymark.flush();
      const other = tallymark({ url, key });
      other.view("tag-api");
      await other.flush();
    },
    front.origin,
    key,
  );
  await settled(page);
  assert.deepEqual(await counts("tag-api"), { views: 2, engaged: 0 });
});

test("views of pages that are reloaded at once are all counted, once", async () => {
  // They wait for others, so that only the page's end sends them; the next page sends them again, as nobody has heard an answer.
  const page = await tab(client("/reload", "batchMs: 60000"));
  for (let load = 0; load < 10; load++) {
    await page.waitForFunction(() => window.t);
    await page.evaluate(() => t.view("reload"));
    await page.reload();
  }
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => t.flush());
  await settled(page);
  assert.deepEqual(await counts("reload"), { views: 10, engaged: 0 });
  assert.deepEqual(await page.evaluate(() => lost), []);
});

test("what waits when a tab is closed is sent by the browser", async () => {
  const page = await tab(client("/close", "batchMs: 60000"));
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => {
    for (let n = 0; n < 20; n++) t.view("close");
  });
  assert.equal(front.sent("close").length, 0);
  await page.close({ runBeforeUnload: true });
  await until("the beacon has come", () => front.sent("close").length === 20);
  await until("it is counted", async () => (await counts("close")).views === 20);
  // Nobody has heard the answer: they are kept for the next page, with the time when they were sent.
  const next = await tab(front.page("/plain", "plain"));
  const kept = await next.evaluate(() => Object.values(localStorage));
  assert.equal(kept.length, 20);
  assert.ok(kept.every((text) => Math.abs(Date.now() - Number.parseInt(text)) < PATIENCE_MS));
  const { headers, url } = front.requests.find(({ body }) => body.includes('"close"'));
  assert.match(headers["content-type"], /^text\/plain/);
  assert.match(url, /sent_at=\d{13}/);
});

test("views without network are counted when it is back, with the times that they had", async () => {
  const page = await tab(client("/offline", "batchMs: 10"));
  await page.waitForFunction(() => window.t);
  await page.setOfflineMode(true);
  const begun = Date.now();
  await page.evaluate(() => {
    for (let n = 0; n < 30; n++) t.view("offline");
  });
  await page.evaluate(() => t.flush());
  assert.equal(front.sent("offline").length, 0);
  await page.setOfflineMode(false);
  await settled(page);
  assert.deepEqual(await counts("offline"), { views: 30, engaged: 0 });
  assert.ok(front.sent("offline").every(({ ts }) => Math.abs(ts - begun) < 5_000));
});

test("views of a tab that was closed without network are sent by the next one", async () => {
  const address = client("/offline-close", "batchMs: 10");
  const page = await tab(address);
  await page.waitForFunction(() => window.t);
  await page.setOfflineMode(true);
  await page.evaluate(() => {
    for (let n = 0; n < 30; n++) t.view("offline-close");
  });
  await page.close({ runBeforeUnload: true });
  assert.equal(front.sent("offline-close").length, 0);
  // They were never sent, so the next page may come whenever it does.
  const plain = await tab(front.page("/plain", "plain"));
  assert.ok(await plain.evaluate(() => Object.values(localStorage).every((text) => text.startsWith("{"))));
  await settled(await tab(address));
  assert.deepEqual(await counts("offline-close"), { views: 30, engaged: 0 });
});

test("two tabs lose nothing and count nothing twice, while the collector is away and one of them dies", async () => {
  front.fault = FAULTS.busy;
  const address = client("/two", "batchMs: 10, batchSize: 7");
  const pages = [await tab(address), await tab(address)];
  for (const page of pages) await page.waitForFunction(() => window.t);
  await Promise.all(
    pages.map((page) =>
      page.evaluate(async () => {
        for (let n = 0; n < 100; n++) {
          t.view("two");
          if (n % 10 === 0) await t.flush();
        }
      }),
    ),
  );
  const crashed = pages[0].goto("chrome://crash").catch(() => {});
  await until("it has died", async () => (await Promise.race([pages[0].evaluate(() => "lives").catch(() => "dead"), crashed])) !== "lives");
  front.release();
  await pages[1].evaluate(() => t.flush());
  await settled(pages[1]);
  assert.deepEqual(await counts("two"), { views: 200, engaged: 0 });
});

test("a collector that is killed while a page sends counts every view once when it is back", { skip: !kill }, async () => {
  const page = await tab(client("/killed", "batchMs: 10, batchSize: 7"));
  await page.waitForFunction(() => window.t);
  const sending = page.evaluate(async () => {
    for (let n = 0; n < 300; n++) {
      t.view("killed");
      await new Promise((next) => setTimeout(next, 5));
    }
  });
  await until("it sends", () => front.sent("killed").length > 20);
  writeFileSync(kill, "");
  await sending;
  await until("the collector is back", () => !existsSync(kill));
  await page.evaluate(() => t.flush());
  await settled(page);
  assert.deepEqual(await counts("killed"), { views: 300, engaged: 0 });
  assert.deepEqual(await page.evaluate(() => lost), []);
});

test("two tabs take turns: what one is sending the other does not send", async () => {
  const address = client("/turns", "batchMs: 10");
  const pages = [await tab(address), await tab(address)];
  for (const page of pages) await page.waitForFunction(() => window.t);
  front.fault = FAULTS.hang;
  await pages[0].evaluate(() => (t.view("turns"), void t.flush()));
  await until("the first sends", () => front.waiting.length === 1);
  await pages[1].evaluate(() => (t.view("turns"), void t.flush()));
  await pages[1].evaluate(() => new Promise((next) => setTimeout(next, 300)));
  assert.equal(front.waiting.length, 1);
  front.release();
  await settled(pages[1]);
  assert.deepEqual(await counts("turns"), { views: 2, engaged: 0 });
  // What one has settled the other may not see at once, as a browser tells its tabs of each other's storage in its own time.
  assert.equal(new Set(front.sent("turns").map((event) => event.event_id)).size, 2);
});

test("what was added before a flush is sent when it ends, also while another one is ending", async () => {
  const page = await tab(client("/flush", "batchMs: 60000"));
  await page.waitForFunction(() => window.t);
  const left = await page.evaluate(async () => {
    const wait = (ms) => new Promise((next) => setTimeout(next, ms));
    // A lock that is given back slowly, as by a busy browser.
    const request = navigator.locks.request.bind(navigator.locks);
    navigator.locks.request = (...asked) => request(...asked).then(() => wait(300));
    t.view("flush");
    const first = t.flush();
    while (Object.keys(localStorage).length) await wait(5);
    t.view("flush");
    await t.flush();
    await first;
    return Object.keys(localStorage).length;
  });
  assert.equal(left, 0);
  assert.deepEqual(await counts("flush"), { views: 2, engaged: 0 });
});

test("an answer that is lost is no view that is lost, and none that is counted twice", async () => {
  front.fault = FAULTS.answerLost;
  const page = await tab(client("/answer", "batchMs: 10"));
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => {
    for (let n = 0; n < 5; n++) t.view("answer");
  });
  await until("it is tried again", () => front.sent("answer").length >= 15);
  front.release();
  await settled(page);
  assert.deepEqual(await counts("answer"), { views: 5, engaged: 0 });
});

test("who is told to come back later comes back later", async () => {
  front.fault = FAULTS.hang;
  front.retryAfter = "2";
  const page = await tab(client("/later", "batchMs: 200"));
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => (t.view("later"), void t.flush()));
  await until("it is on its way", () => front.waiting.length === 1);
  // More views are no reason to come earlier, whether they were there before the answer or not.
  await page.evaluate(() => t.view("later"));
  front.refuse();
  await page.evaluate(() => new Promise((next) => setTimeout(next, 500)));
  await page.evaluate(() => t.view("later"));
  await settled(page);
  const [first, second] = front.requests.filter(({ body }) => body.includes('"later"'));
  assert.ok(second.at - first.at >= 1_990, `after ${second.at - first.at} ms`);
  assert.notEqual(new URL(first.url, collector).searchParams.get("sent_at"), new URL(second.url, collector).searchParams.get("sent_at"));
  assert.deepEqual(await counts("later"), { views: 3, engaged: 0 });
});

test("an event that is refused does not keep back the others, and the page is told", async () => {
  const page = await tab(client("/refused", "batchMs: 10"));
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => {
    t.view("refused");
    t.view("x".repeat(200));
    t.view("y".repeat(5_000));
    t.view("refused");
  });
  await settled(page);
  assert.deepEqual(await counts("refused"), { views: 2, engaged: 0 });
  assert.deepEqual(await page.evaluate(() => lost.sort()), [["refused", 1], ["too_large", 1]]);
});

test("those who do not want to be tracked are not, when that is respected", async () => {
  const dnt = () => Object.defineProperty(navigator, "doNotTrack", { value: "1" });
  const gpc = () => Object.defineProperty(navigator, "globalPrivacyControl", { value: true });
  const page = client("/dnt", "batchMs: 10, respectDnt: true");
  const tagged = front.page("/dnt-tag", script('data-video="dnt" data-respect-dnt'));
  for (const asks of [dnt, gpc]) {
    for (const address of [page, tagged]) {
      const open = await tab(address, asks);
      await open.waitForFunction(() => window.t ?? window.tallymark);
      await open.evaluate(async () => {
        const client = window.t ?? window.tallymark;
        client.view("dnt");
        client.watch("dnt").stop();
        await client.flush();
      });
      assert.deepEqual(await open.evaluate(() => Object.keys(localStorage)), []);
      await open.close({ runBeforeUnload: true });
    }
  }
  assert.equal(front.sent("dnt").length, 0);
  const told = await tab(client("/dnt-counted", "batchMs: 10"), dnt);
  await told.waitForFunction(() => window.t);
  await told.evaluate(() => t.view("dnt"));
  await settled(told);
  assert.deepEqual(await counts("dnt"), { views: 1, engaged: 0 });
});

test("a player's watch is one view and one engaged event with the time that it played", async () => {
  const html = `<audio id="player" data-video="player" src="${silence(20)}"></audio>`;
  const page = await tab(client("/player", "batchMs: 10, engagedMs: 1000", html));
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => void (window.w = t.watch(player, { space: "s" })));
  await page.evaluate(() => t.flush());
  assert.equal(front.sent("player").length, 0, "nobody has viewed it yet");
  const ms = await page.evaluate(async () => {
    const heard = (name) => new Promise((next) => player.addEventListener(name, next, { once: true }));
    const wait = (ms) => new Promise((next) => setTimeout(next, ms));
    const playing = heard("playing");
    void player.play();
    await playing;
    const begun = performance.now();
    await wait(800);
    player.pause();
    await heard("pause");
    const first = performance.now() - begun;
    await wait(1_000);
    const again = heard("playing");
    void player.play();
    await again;
    const second = performance.now();
    await wait(900);
    w.stop();
    return first + performance.now() - second;
  });
  await settled(page);
  assert.deepEqual(await counts("player"), { views: 1, engaged: 1 });
  const [view, engaged] = front.sent("player");
  assert.equal(view.kind, undefined);
  assert.deepEqual([engaged.kind, engaged.space_id], ["engaged", "s"]);
  assert.notEqual(view.event_id, engaged.event_id);
  assert.ok(engaged.watch_ms >= 1_000 && Math.abs(engaged.watch_ms - ms) < 300, `${engaged.watch_ms} of ${ms} ms`);
  // The end of the page adds nothing.
  await page.reload();
  assert.equal(front.sent("player").length, 2);
});

test("who leaves early has viewed and was not engaged", async () => {
  const page = await tab(client("/early", "batchMs: 10"));
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => void t.watch("early"));
  await page.reload();
  await settled(page);
  assert.deepEqual(await counts("early"), { views: 1, engaged: 0 });
});

test("a page's watch time is told once when the page is left", async () => {
  const page = await tab(front.page("/leave", script('data-video="leave" data-watch')));
  await page.evaluate((url, key) => void tallymark({ url, key, engagedMs: 200 }).watch("leave-soon"), front.origin, key);
  await page.evaluate(() => new Promise((next) => setTimeout(next, 600)));
  await page.reload();
  await settled(page);
  assert.deepEqual(await counts("leave-soon"), { views: 1, engaged: 1 });
  const engaged = front.sent("leave-soon").find(({ kind }) => kind === "engaged");
  assert.ok(engaged.watch_ms >= 550 && engaged.watch_ms < 5_000, `${engaged.watch_ms} ms`);
  // The tag's own watches: one view a load, and nobody stayed for ten seconds.
  assert.deepEqual(await counts("leave"), { views: 2, engaged: 0 });
});

test("a tab that is hidden has told everything, and goes on where it was", async () => {
  const page = await tab(client("/hidden", "batchMs: 60000, engagedMs: 100"));
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => {
    t.view("hidden");
    t.watch("hidden");
  });
  await page.evaluate(() => new Promise((next) => setTimeout(next, 300)));
  const other = await tab(front.page("/other", "other"));
  await other.bringToFront();
  await until("it is hidden", () => page.evaluate(() => document.visibilityState === "hidden"));
  await until("all is sent", () => front.sent("hidden").length === 3);
  // It lives to hear the answer, so nothing is sent again.
  await settled(page);
  await page.bringToFront();
  await page.evaluate(() => (t.view("hidden"), t.flush()));
  await page.reload();
  await settled(page);
  assert.equal(front.sent("hidden").length, 4);
  assert.deepEqual(await counts("hidden"), { views: 3, engaged: 1 });
});

test("what is on its way is not sent again by its own page", async () => {
  const page = await tab(client("/way", "batchMs: 60000"));
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => t.view("way"));
  front.fault = FAULTS.hang;
  const other = await tab(front.page("/other", "other"));
  await other.bringToFront();
  await until("it is on its way", () => front.waiting.length === 1);
  await page.bringToFront();
  await page.evaluate(() => (t.view("way"), void t.flush()));
  await until("the second is on its way", () => front.waiting.length === 2);
  assert.equal(front.sent("way").length, 2);
  front.release();
  await settled(page);
  assert.deepEqual(await counts("way"), { views: 2, engaged: 0 });
});

test("the watch time of a tab that died is sent by the next page, once", async () => {
  const address = client("/died", "batchMs: 10, engagedMs: 100");
  const page = await tab(address);
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => void t.watch("died"));
  // A heartbeat is every five seconds; a look at any moment does the same.
  await page.evaluate(() => new Promise((next) => setTimeout(next, 300)));
  await page.evaluate(() => dispatchEvent(new Event("visibilitychange")));
  await until("the view is counted", async () => (await counts("died")).views === 1);
  void page.goto("chrome://crash").catch(() => {});
  const next = await tab(address);
  await next.waitForFunction(() => window.t);
  await next.evaluate(() => t.flush());
  const noted = await next.evaluate(() => Object.entries(localStorage).filter(([, text]) => text.startsWith("~")));
  assert.equal(noted.length, 1, "it may still be watched");
  // As if three minutes had passed.
  await next.evaluate(([name, text]) => localStorage.setItem(name, "~" + (Number.parseInt(text.slice(1)) - 180_000) + text.slice(text.indexOf("{"))), noted[0]);
  await next.evaluate(() => t.flush());
  await settled(next);
  assert.deepEqual(await counts("died"), { views: 1, engaged: 1 });
});

test("a watch that another page has sent is not sent again by its own", async () => {
  const page = await tab(client("/slept", "batchMs: 10, engagedMs: 100"));
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => void (window.w = t.watch("slept")));
  await page.evaluate(() => new Promise((next) => setTimeout(next, 300)));
  await page.evaluate(() => dispatchEvent(new Event("visibilitychange")));
  // Another page has taken it while this one slept.
  await page.evaluate(() => Object.keys(localStorage).forEach((name) => localStorage[name][0] === "~" && localStorage.removeItem(name)));
  await page.evaluate(() => w.stop());
  await page.reload();
  await settled(page);
  assert.deepEqual(await counts("slept"), { views: 1, engaged: 0 });
});

test("what was sent without an answer is given up when it could be counted twice, and the page is told", async () => {
  const page = await tab(client("/doubt", "batchMs: 60000"));
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => t.view("doubt"));
  const stored = await page.evaluate(() => Object.entries(localStorage)[0]);
  await page.evaluate(([name, event]) => localStorage.setItem(name, Date.now() - 600_000 + event), stored);
  await page.evaluate(() => t.flush());
  await settled(page);
  assert.deepEqual(await page.evaluate(() => lost), [["in_doubt", 1]]);
  assert.equal(front.sent("doubt").length, 0);
});

test("the queue has an end: the oldest views go, and the page is told", async () => {
  const page = await tab(client("/full", "batchMs: 60000, queueSize: 10"));
  await page.waitForFunction(() => window.t);
  await page.evaluate(() => {
    for (let n = 0; n < 25; n++) t.view("full");
  });
  await page.evaluate(() => t.flush());
  await settled(page);
  assert.deepEqual(await counts("full"), { views: 10, engaged: 0 });
  assert.equal(await page.evaluate(() => lost.filter(([why]) => why === "queue_full").length), 15);
});

test("a page that is only prepared is viewed when somebody comes", async () => {
  front.page("/prepared", script('data-video="prepared"'));
  const rules = { prerender: [{ urls: ["/prepared"], eagerness: "immediate" }] };
  const go = '<a href="/prepared">go</a>';
  const before = front.visits.length;
  const page = await tab(front.page("/prepares", `${go}<script type="speculationrules">${JSON.stringify(rules)}</script>`));
  await until("it is prepared", () => front.visits.includes("/prepared"));
  await until("its script has come", () => front.visits.indexOf("/t.js", before) >= 0);
  await page.evaluate(() => new Promise((next) => setTimeout(next, 1_500)));
  assert.equal(front.sent("prepared").length, 0);
  // Nor is anything kept that another page would send if nobody came.
  assert.deepEqual(await page.evaluate(() => Object.keys(localStorage)), []);
  await Promise.all([page.waitForNavigation(), page.click("a")]);
  assert.ok(await page.evaluate(() => performance.getEntriesByType("navigation")[0].activationStart > 0), "the page was not prepared");
  await settled(page);
  assert.deepEqual(await counts("prepared"), { views: 1, engaged: 0 });
});

test("a public key counts views of the pages it is for, across origins", async (t) => {
  if (!key) return t.skip("no keys");
  const other = await site(collector);
  try {
    const html = (video) => `<script src="${collector}/t.js" data-key="${key}" data-video="${video}"></script>`;
    const page = await tab(front.page("/cors", html("cors")));
    await settled(page);
    assert.deepEqual(await counts("cors"), { views: 1, engaged: 0 });
    // Another client of the same page asks beforehand (a preflight), as its request has headers.
    const send = async (collector, key) => {
      const headers = { "authorization": `Bearer ${key}`, "content-type": "application/json" };
      const event = { event_id: crypto.randomUUID(), video_id: "cors", ts: Date.now() };
      try {
        return (await fetch(`${collector}/v1/events`, { method: "POST", headers, body: JSON.stringify(event) })).status;
      } catch (error) {
        return error.name;
      }
    };
    assert.equal(await page.evaluate(send, collector, key), 202);
    // What was asked a moment ago may be answered from memory.
    await until("both are counted", async () => (await counts("cors")).views === 2);
    const stranger = await tab(other.page("/stranger", html("stranger")));
    await stranger.evaluate(() => window.tallymark.flush());
    assert.equal(await stranger.evaluate(send, collector, key), "TypeError");
    assert.deepEqual([await counts("stranger"), await counts("cors")], [{ views: 0, engaged: 0 }, { views: 2, engaged: 0 }]);
    // A key that can be mended is no reason to throw views away.
    assert.equal(await stranger.evaluate(() => Object.keys(localStorage).length), 1);
  } finally {
    other.close();
  }
});

test("where storage is blocked views are counted all the same", async () => {
  // As a user does who forbids all sites to store anything.
  const profile = mkdtempSync(join(tmpdir(), "tallymark-blocked-"));
  mkdirSync(join(profile, "Default"));
  const blocked = { profile: { default_content_setting_values: { cookies: 2 } } };
  writeFileSync(join(profile, "Default", "Preferences"), JSON.stringify(blocked));
  const strict = await puppeteer.launch({ ...CHROMIUM, userDataDir: profile });
  try {
    context = strict.defaultBrowserContext();
    const page = await tab(client("/blocked", "batchMs: 10"));
    await page.waitForFunction(() => window.t);
    assert.equal(await page.evaluate(() => { try { return !!localStorage; } catch (error) { return error.name; } }), "SecurityError");
    front.fault = FAULTS.busy;
    await page.evaluate(() => (t.view("blocked"), t.flush()));
    front.release();
    await page.evaluate(() => (t.view("blocked"), t.flush()));
    await until("both are counted", async () => (await counts("blocked")).views === 2);
    await page.evaluate(() => t.view("blocked"));
    await page.close({ runBeforeUnload: true });
    await until("the last is counted", async () => (await counts("blocked")).views === 3);
  } finally {
    context = undefined;
    await strict.close();
    rmSync(profile, { recursive: true, force: true });
  }
});

test("nothing that a page does makes the client throw", async () => {
  const page = await tab(client("/hostile", "batchMs: 10, onLoss: () => { throw new Error('of the page'); }"));
  await page.waitForFunction(() => window.t);
  const thrown = await page.evaluate(async () => {
    const { tallymark } = await import("/dist/index.js");
    const odd = [undefined, null, 0, NaN, "", "x".repeat(5_000), Symbol("s"), 10n, {}, { toString: null }, [], () => {}, document];
    const thrown = [];
    for (const value of odd) {
      for (const call of [
        () => t.view(value),
        () => t.view("v", value),
        () => t.view("v", { space: value, viewer: value }),
        () => t.watch(value).stop(),
        () => t.watch("v", value).stop(),
        () => t.watch("v", { video: value }).ms(),
        () => tallymark(value).view("v"),
        () => tallymark({ url: value }).flush(),
      ]) {
        try {
          await call();
        } catch (error) {
          thrown.push(String(error));
        }
      }
    }
    localStorage.setItem(`tallymark ${location.origin} zz`, "not ours");
    await t.flush();
    return thrown;
  });
  assert.deepEqual(thrown, []);
});
