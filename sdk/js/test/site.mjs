// A site as the tests need it: pages, the package and the collector behind one address, as a site's own proxy would have it. The
// collector is the real one. The proxy can be told to fail; it keeps what went through it.
import { readFile } from "node:fs/promises";
import http from "node:http";

const DIST = new URL("../dist/", import.meta.url);

/** What may befall a request for /v1/events. */
export const FAULTS = {
  /** Passed on. */
  none: null,
  /** Refused before the collector has seen it. */
  busy: "busy",
  /** The connection breaks when the collector has taken it. */
  answerLost: "answerLost",
  /** Nothing happens, until another fault is set. */
  hang: "hang",
};

/** Serves until `close()`. */
export async function site(collector) {
  const pages = new Map();
  const self = { fault: FAULTS.none, retryAfter: undefined, requests: [], visits: [], waiting: [] };

  const forward = (request, body, response) => {
    const { method, headers } = request;
    const onward = http.request(new URL(request.url, collector), { method, headers: { ...headers, host: new URL(collector).host } }, (answer) => {
      if (self.fault === FAULTS.answerLost && method === "POST") {
        answer.resume();
        response.destroy();
        return;
      }
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    onward.end(body);
  };

  const answer = async (request, body, response) => {
    const path = request.url.split("?")[0];
    self.visits.push(path);
    if (pages.has(path)) {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8", "cache-control": "no-store" }).end(pages.get(path));
    } else if (path.startsWith("/dist/")) {
      response.writeHead(200, { "content-type": "text/javascript" }).end(await readFile(new URL(path.slice(6), DIST)));
    } else if (path === "/favicon.ico") {
      response.writeHead(204).end();
    } else {
      if (path === "/v1/events") {
        self.requests.push({ method: request.method, url: request.url, headers: request.headers, body, at: Date.now(), fault: self.fault });
        const refuse = () => response.writeHead(503, self.retryAfter ? { "retry-after": self.retryAfter } : {}).end();
        if (self.fault === FAULTS.busy) return refuse();
        if (self.fault === FAULTS.hang) return self.waiting.push({ go: () => forward(request, body, response), refuse });
      }
      forward(request, body, response);
    }
  };

  const server = http.createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => answer(request, Buffer.concat(parts).toString(), response).catch(() => response.destroy()));
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const origin = `http://127.0.0.1:${server.address().port}`;

  return Object.assign(self, {
    origin,
    /** A page of this HTML; its address. */
    page(path, html) {
      pages.set(path, `<!doctype html><html><head><title>${path}</title></head><body>${html}</body></html>`);
      return origin + path;
    },
    /** The events that were sent about a video, by request; the same event may be among them more than once. */
    sent(video) {
      return self.requests.flatMap(({ body }) => (body ? JSON.parse(body) : [])).filter((event) => event.video_id === video);
    },
    /** Lets what hangs go on. */
    release() {
      self.fault = FAULTS.none;
      self.waiting.splice(0).forEach(({ go }) => go());
    },
    /** Refuses what hangs, and nothing after it. */
    refuse() {
      self.fault = FAULTS.none;
      self.waiting.splice(0).forEach(({ refuse }) => refuse());
    },
    close() {
      server.close();
      server.closeAllConnections();
    },
  });
}
