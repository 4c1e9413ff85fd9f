/**
 * A live connection to a connection-exporter, for front ends of your own. The exporter serves this file at /client.js,
 * and its types at /client.d.ts. It has no dependencies and touches no element of the page.
 *
 *     import { connect } from "http://localhost:8000/client.js";
 *     const exporter = connect("http://localhost:8000");
 *     const unsubscribe = exporter.addCallback((change) => console.log(change.type, exporter.summary));
 *
 * A page of another origin needs `--web.cors.origin` on the exporter.
 */

// The exporter sends something at least every 5 s, so a longer silence means that the connection is dead.
const SILENCE = 11000;
const QUICK_ATTEMPTS = 5;
const QUICK_PAUSE = 5000;
const LONGEST_PAUSE = 30000;

/** A request that the exporter refused. `status` is the HTTP status; `retryAfter` is in seconds, or null. */
export class ExporterError extends Error {
  constructor(message, status, retryAfter = null) {
    super(message);
    this.name = "ExporterError";
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Connects to the exporter at `url` and stays connected until `close()` is called. */
export function connect(url) {
  return new Connection(url);
}

class Connection {
  #base;
  #callbacks = new Set();
  #board = null;
  #abort = null;
  #wake = () => {};
  #watchdog;
  #failures = 0;
  #lastId = "";
  #lastHeard = 0;
  #skew = 0;
  #closed = false;

  constructor(url) {
    this.#base = new URL(url.endsWith("/") ? url : `${url}/`, globalThis.location?.href);
    this.connected = false;
    this.error = null;
    this.nextAttempt = null;
    // A connection can die without a sign, and timers stop while a computer sleeps.
    this.#watchdog = setInterval(() => {
      if (this.#abort && this.#isSilent()) this.#abort.abort();
    }, 1000);
    this.#run();
  }

  /** The last known board, in the form of /health/detailed; null before the first one. */
  get status() {
    return this.#board;
  }

  /** The number of services in total and in each status; null before the first board. */
  get summary() {
    if (!this.#board) return null;
    const summary = { total: 0, healthy: 0, unhealthy: 0, disconnected: 0, connecting: 0, unknown: 0 };
    for (const service of Object.values(this.#board.services)) {
      summary.total += 1;
      summary[service.status] += 1;
    }
    return summary;
  }

  /** When something last arrived from the exporter, in milliseconds since the epoch; 0 if nothing has. */
  get lastHeard() {
    return this.#lastHeard;
  }

  /** The exporter's clock, in milliseconds since the epoch. A phone's own clock may be wrong. */
  now() {
    return Date.now() + this.#skew;
  }

  /**
   * Calls `callback(change)` for each change from now on. Returns the function that ends this. An error in a callback
   * is reported to the console and affects nothing else.
   */
  addCallback(callback) {
    this.#callbacks.add(callback);
    return () => this.#callbacks.delete(callback);
  }

  /** Has the exporter check one service, or all, now. Resolves to the board; rejects with an `ExporterError`. */
  async forceCheck(name) {
    const query = name === undefined ? "" : `?service=${encodeURIComponent(name)}`;
    const board = await this.#request(`health/force-check${query}`, { method: "POST" });
    this.#take("board", board);
    return board;
  }

  /** Resolves to the last transitions of a service, newest first; rejects with an `ExporterError`. */
  async history(name) {
    return (await this.#request(`health/service/${encodeURIComponent(name)}`)).transitions;
  }

  /** Tries to reconnect now instead of at `nextAttempt`. Does nothing while connected. */
  reconnect() {
    this.#wake();
  }

  /** Ends the connection for good. */
  close() {
    this.#closed = true;
    clearInterval(this.#watchdog);
    this.#abort?.abort();
    this.#wake();
  }

  async #run() {
    while (!this.#closed) {
      this.#setLink(false, this.error, null);
      let error;
      try {
        await this.#follow();
        error = "The exporter closed the connection.";
      } catch (problem) {
        if (problem instanceof ExporterError) error = problem.message;
        else error = this.#isSilent() ? "The exporter has been silent for 11 s." : "The exporter cannot be reached.";
      }
      if (this.#closed) break;
      this.#failures += 1;
      const slow = QUICK_PAUSE * 2 ** Math.max(this.#failures - QUICK_ATTEMPTS, 0);
      const pause = Math.min(slow, LONGEST_PAUSE);
      this.#setLink(false, error, Date.now() + pause);
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, pause);
      });
    }
    this.#setLink(false, "This page closed the connection.", null);
  }

  async #follow() {
    this.#abort = new AbortController();
    const began = Date.now();
    this.#lastHeard ||= 0;
    const deadline = setTimeout(() => this.#abort?.abort(), SILENCE);
    try {
      const headers = this.#lastId ? { "Last-Event-ID": this.#lastId } : {};
      const answer = await fetch(new URL("events", this.#base), {
        headers,
        cache: "no-store",
        credentials: "same-origin",
        signal: this.#abort.signal,
      });
      if (!answer.ok) throw await errorOf(answer);
      this.#learnClock(answer.headers.get("Date"), began);
      await this.#read(answer.body.getReader(), deadline);
    } finally {
      clearTimeout(deadline);
      this.#abort?.abort();
      this.#abort = null;
    }
  }

  async #read(reader, deadline) {
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(deadline);
      this.#lastHeard = Date.now();
      const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) this.#parse(block);
      if (!this.connected && this.#board) {
        this.#failures = 0;
        this.#setLink(true, null, null);
      }
    }
  }

  #parse(block) {
    const fields = {};
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
    }
    if (fields.data === undefined) return;
    this.#lastId = fields.id ?? this.#lastId;
    this.#take(fields.event, JSON.parse(fields.data));
  }

  #take(type, data) {
    if (type === "board") {
      this.#board = data;
    } else if (!this.#board) {
      return;
    } else if (type === "service" && data.name in this.#board.services) {
      this.#board.services[data.name] = data;
    } else if (type === "transition" && data.name in this.#board.services) {
      const { name, to, reason, message, at } = data;
      Object.assign(this.#board.services[name], { status: to, reason, message, status_since: at });
    } else if (type === "overall") {
      this.#board = { ...data, services: this.#board.services };
    } else {
      return; // an event of a newer exporter
    }
    this.#notify({ type, ...(type === "transition" ? { transition: data } : {}), name: data.name ?? null });
  }

  #setLink(connected, error, nextAttempt) {
    this.connected = connected;
    this.error = error;
    this.nextAttempt = nextAttempt;
    this.#notify({ type: "connection", name: null });
  }

  #notify(change) {
    for (const callback of [...this.#callbacks]) {
      try {
        callback(change);
      } catch (error) {
        console.error(error);
      }
    }
  }

  #isSilent() {
    return this.connected && Date.now() - this.#lastHeard > SILENCE;
  }

  // The Date header has whole seconds only, so a small difference means nothing.
  #learnClock(dateHeader, began) {
    const skew = Date.parse(dateHeader) - (began + Date.now()) / 2;
    this.#skew = Math.abs(skew) > 3000 ? skew : 0;
  }

  async #request(path, options = {}) {
    let answer;
    try {
      answer = await fetch(new URL(path, this.#base), { cache: "no-store", credentials: "same-origin", ...options });
    } catch {
      throw new ExporterError("The exporter cannot be reached.", 0);
    }
    if (!answer.ok) throw await errorOf(answer);
    return answer.json();
  }
}

// The exporter explains an error as problem+json; a proxy in between might not.
async function errorOf(answer) {
  const retryAfter = Number(answer.headers.get("Retry-After")) || null;
  let detail = null;
  try {
    ({ detail } = await answer.json());
  } catch {}
  const message = detail ? `The exporter answered ${answer.status}: ${detail}.` : `The answer was HTTP ${answer.status}.`;
  return new ExporterError(message, answer.status, retryAfter);
}
