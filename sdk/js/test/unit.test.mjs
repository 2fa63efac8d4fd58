// What needs no browser: ids, what is stored, what an answer means, the clock of a watch. `npm run build` makes what is tested.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import { verdict } from "../dist/answer.js";
import { newId, uuidv7 } from "../dist/id.js";
import { tallymark } from "../dist/index.js";
import { DOUBT_MS, EVENT_CHARS, SILENT_MS, batch, judge } from "../dist/stored.js";
import { look } from "../dist/watch.js";

test("the script has less than 3 KB as browsers fetch it", () => {
  const bytes = gzipSync(readFileSync(new URL("../dist/t.js", import.meta.url)), { level: 9 }).length;
  assert.ok(bytes < 3_000, `it has ${bytes} bytes`);
});

test("the package needs no other", () => {
  const { dependencies } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  assert.equal(dependencies, undefined);
});

test("an id is the UUIDv7 of RFC 9562", () => {
  // The example of its appendix A.6.
  const random = Uint8Array.from(Buffer.from("cc318c40dc0c0c07398f000000000000", "hex"));
  assert.equal(uuidv7(0x017f22e279b0, random), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
  for (const byte of [0, 255]) {
    assert.match(uuidv7(0, new Uint8Array(16).fill(byte)), /^00000000-0000-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  }
});

test("ids differ, and later ones sort behind earlier ones", async () => {
  const ids = new Set(Array.from({ length: 10_000 }, newId));
  assert.equal(ids.size, 10_000);
  assert.ok(uuidv7(1_000, new Uint8Array(16).fill(255)) < uuidv7(1_001, new Uint8Array(16)));
});

test("what is stored is sent, left or given up by its age", () => {
  const now = 1_763_642_096_789;
  for (const [text, does] of [
    ["{}", "{}"],
    [`${now}{"a":1}`, '{"a":1}'],
    [`${now - DOUBT_MS + 1}{}`, "{}"],
    [`${now - DOUBT_MS}{}`, "doubt"],
    // The clock was set back: nobody knows how long it was.
    [`${now + DOUBT_MS}{}`, "doubt"],
    [`~${now}{}`, ""],
    [`~${now - SILENT_MS + 1}{}`, ""],
    [`~${now - SILENT_MS}{}`, "{}"],
    // Not ours.
    ["", "doubt"],
    ["x", "doubt"],
    ["x{}", "doubt"],
  ]) {
    assert.equal(judge(text, now), does, text);
  }
});

test("a request has the oldest events, no more than it may have, and fits what outlives a page", () => {
  assert.deepEqual(batch([["b", "2"], ["a", "1"], ["c", "3"]], 2), [["a", "1"], ["b", "2"]]);
  assert.deepEqual(batch([], 2), []);
  const long = Array.from({ length: 50 }, (_, n) => [`${n + 10}`, "\u{20ac}".repeat(EVENT_CHARS)]);
  const taken = batch(long, 50);
  assert.deepEqual(taken, long.slice(0, taken.length));
  assert.ok(taken.length > 0);
  assert.ok(Buffer.byteLength(taken.map(([, event]) => event).join()) < 64 * 1024);
});

test("events are settled by 202, or when they alone are refused", () => {
  for (const [status, events, settled, most] of [
    [202, 50, true, Infinity],
    [400, 50, false, 25],
    [400, 3, false, 1],
    [413, 2, false, 1],
    [400, 1, true, 1],
    [413, 1, true, 1],
    [415, 1, true, 1],
    [422, 1, true, 1],
  ]) {
    const now = verdict(status, null, events, 0, 0.5);
    assert.deepEqual([now.settled, now.most, now.wait], [settled, most, 0], `${status}`);
  }
});

test("whatever may pass is waited for, ever longer, never less than was asked for", () => {
  for (const status of [0, 200, 302, 401, 403, 404, 408, 409, 429, 500, 502, 503, 504]) {
    assert.equal(verdict(status, null, 1, 0, 0.5).settled, false, `${status}`);
    assert.equal(verdict(status, null, 1, 0, 0.5).wait, 500);
  }
  for (const [after, failures, random, wait] of [
    [null, 0, 0.999, 999],
    [null, 3, 1, 8_000],
    [null, 10, 1, 60_000],
    [null, 5_000, 1, 60_000],
    ["7", 0, 0, 7_000],
    ["7", 1, 1, 9_000],
    ["Wed, 21 Oct 2026 07:28:00 GMT", 0, 1, 1_000],
    ["", 0, 1, 1_000],
  ]) {
    assert.equal(verdict(503, after, 1, failures, random).wait, wait);
  }
});

test("watch time is what lies between looks that saw it, and no sleep of the machine", () => {
  let clock = { total: 0, since: null };
  for (const [now, watched, total] of [
    [1_000, false, 0],
    [2_000, true, 0],
    [3_500, true, 1_500],
    [4_000, false, 2_000],
    [9_000, false, 2_000],
    [9_000, true, 2_000],
    [9_000 + 3_600_000, true, 67_000],
  ]) {
    clock = look(clock, now, watched);
    assert.equal(clock.total, total);
  }
});

test("outside of a browser a client does nothing", async () => {
  const client = tallymark({ url: "http://127.0.0.1:1" });
  client.view("v");
  const watch = client.watch("v");
  watch.stop();
  assert.equal(watch.ms(), 0);
  await client.flush();
});
