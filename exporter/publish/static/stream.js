// The connection to /events: reads it, notices when it is cut, and makes it again for ever. Knows no element.

// The exporter breaks every silence after 5 s.
const SILENCE = 11000;
const PAUSES = [1000, 2000, 3000, 5000];

class Stream {
  // `onEvent(name, data)` is called for each event, `onLink()` when `live`, `why` or `nextTry` has changed.
  constructor(url, onEvent, onLink) {
    this.url = url;
    this.onEvent = onEvent;
    this.onLink = onLink;
    this.live = false;
    this.heard = 0;
    this.why = "";
    this.nextTry = null;
    this.lastId = "";
    this.failures = 0;
    this.abort = null;
    this.wake = () => {};
  }

  async run() {
    for (;;) {
      this.nextTry = null;
      this.onLink();
      try {
        await this.#read();
        this.why = "The exporter has ended the connection.";
      } catch (error) {
        this.why = error instanceof Refused ? error.message : this.#silent() ? "No word for 11 s." : "No connection.";
      }
      this.live = false;
      const pause = PAUSES[Math.min(this.failures++, PAUSES.length - 1)];
      this.nextTry = Date.now() + pause;
      this.onLink();
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, pause);
      });
    }
  }

  // Called every second: a link may die without a word, and timers stand still while a computer sleeps.
  look() {
    if (this.abort && this.#silent()) this.abort.abort();
  }

  retryNow() {
    this.wake();
  }

  #silent() {
    return this.heard > 0 && Date.now() - this.heard > SILENCE;
  }

  async #read() {
    this.abort = new AbortController();
    this.heard = Date.now();
    try {
      const headers = this.lastId ? { "Last-Event-ID": this.lastId } : {};
      const answer = await fetch(this.url, { headers, cache: "no-store", signal: this.abort.signal });
      if (!answer.ok) throw new Refused(await problemOf(answer));
      learnClock(answer.headers.get("Date"));
      const reader = answer.body.getReader();
      const decoder = new TextDecoder();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        this.heard = Date.now();
        const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) this.#take(block);
        if (!this.live) {
          this.live = true;
          this.failures = 0;
          this.onLink();
        }
      }
    } finally {
      this.abort.abort();
      this.abort = null;
    }
  }

  #take(block) {
    const fields = {};
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
    }
    if (fields.data === undefined) return;
    this.onEvent(fields.event, JSON.parse(fields.data));
    this.lastId = fields.id;
  }
}

class Refused extends Error {}

// What a bad answer says of itself: our own problem+json, or else a proxy's number.
async function problemOf(answer) {
  try {
    return `The exporter answers ${answer.status}: ${(await answer.json()).detail}.`;
  } catch {
    return `The answer is HTTP ${answer.status}.`;
  }
}
