// One service on the page. Everything is written as text, never as HTML.

const SAMPLES = 60;
const CHANGES = 8;
const KEPT_FOR = 15 * 60000;

class Card {
  // `actions.force(card)` is called for the button, `actions.history(card)` when the card needs its history.
  constructor(service, index, actions) {
    this.index = index;
    this.actions = actions;
    this.transitions = [];
    this.unasked = [];
    this.historyAsked = false;
    this.samples = samplesOf(service.name);
    this.visible = false;
    this.opened = false;
    this.compact = false;
    this.body = null;
    this.waitUntil = 0;
    this.element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.head = parts(this.element, "name sign word since kind group minor brief more force".split(" "));
    this.update(service);
    const heading = `service-${service.name}`;
    this.head.name.id = heading;
    this.head.name.textContent = service.name;
    this.head.name.title = service.name;
    this.element.firstElementChild.setAttribute("aria-labelledby", heading);
    this.head.force.setAttribute("aria-label", `Force check ${service.name}`);
    this.head.more.firstElementChild.textContent = `More about ${service.name}`;
    this.head.force.addEventListener("click", () => this.actions.force(this));
    this.head.more.addEventListener("click", () => this.#open(!this.opened));
  }

  update(service) {
    if (service.latency_seconds !== null && service.last_check !== this.service?.last_check) {
      this.samples = [...this.samples, service.latency_seconds].slice(-SAMPLES);
    }
    this.service = service;
  }

  changed({ from, to, reason, message, at }) {
    const change = { from, to, reason, message, at };
    this.transitions = [change, ...this.transitions].slice(0, 200);
    this.unasked = [change, ...this.unasked].slice(0, 200);
    this.element.classList.remove("fresh");
    void this.element.offsetWidth; // restarts the animation
    this.element.classList.add("fresh");
  }

  // What the exporter keeps, and what arrived while it was asked.
  setHistory(transitions) {
    const newest = transitions.length ? transitions[0].at : "";
    this.transitions = [...this.unasked.filter((one) => one.at > newest), ...transitions];
  }

  get isProblem() {
    return this.service.status !== "healthy";
  }

  // Problems: critical services first, then the worst status, then the order of the config.
  get rank() {
    const severity = SEVERITY.indexOf(this.service.status);
    return this.isProblem ? (this.service.critical ? 0 : 1e8) + severity * 1e6 + this.index : this.index;
  }

  matches(words, status) {
    const { name, kind, reason, message } = this.service;
    const text = `${name} ${kind} ${this.service.status} ${reason ?? ""} ${message ?? ""}`.toLowerCase();
    return (!status || this.service.status === status) && words.every((word) => text.includes(word));
  }

  render() {
    const { status, kind, critical, latency_seconds: seconds } = this.service;
    this.element.dataset.status = status;
    this.element.classList.toggle("compact", this.compact && !this.isProblem && !this.opened);
    this.element.classList.toggle("foldable", this.compact && !this.isProblem);
    set(this.head.sign, SIGNS[status]);
    set(this.head.word, status);
    set(this.head.brief, latency(seconds));
    set(this.head.kind, kind);
    this.head.minor.hidden = critical;
    set(this.head.group, this.service.group ?? "");
    this.head.group.hidden = !this.service.group;
    if (!this.visible || this.element.classList.contains("compact")) return;
    if (!this.body) this.#addBody();
    this.#renderBody();
    this.tick(true);
    if (!this.historyAsked) {
      this.historyAsked = true;
      this.unasked = [];
      this.actions.history(this);
    }
  }

  // Called once a second for visible cards: everything that depends on the time.
  tick(isLive) {
    this.#tickForce();
    if (!this.body || !this.visible || this.element.classList.contains("compact")) return;
    const { service, body } = this;
    const { session, canary } = service;
    setTime(this.head.since, service.status_since, `for ${duration(exporter.now() - Date.parse(service.status_since))}`);
    set(body.session, session.up ? `✓ up ${roughly(exporter.now() - Date.parse(session.since))}` : "✕ down");
    const noCanary = ["process", "heartbeat"].includes(service.kind) ? "not used" : "none yet";
    set(body.canary, canary.up === null ? noCanary : `${canary.up ? "✓" : "✕ bad,"} ${ago(canary.last)}`);
    setTime(body.checked, service.last_check, ago(service.last_check));
    setTime(body.succeeded, service.last_success, ago(service.last_success));
    const next = Date.parse(service.next_attempt) - exporter.now();
    const last = Date.parse(service.last_check ?? service.status_since);
    const whole = Date.parse(service.next_attempt) - last;
    const text = !isLive || !service.next_attempt ? "not known" : next > 0 ? `in ${duration(next + 999)}` : "now";
    set(body.next, text);
    body.bar.value = isLive && whole > 0 ? Math.min(1, Math.max(0, next / whole)) : 0;
  }

  // Drawn on changes and every 10 s: it moves too slowly to be drawn each second.
  drawHistory(uptime) {
    if (!this.body || !this.visible) return;
    const range = rangeFor(uptime);
    const spans = spansOf(this.transitions, exporter.now(), range);
    drawStrip(this.body.strip, spans, exporter.now(), range);
    const bad = spans.filter((span) => span.isFault);
    const total = bad.reduce((sum, span) => sum + span.until - span.from, 0);
    const length = total < 1000 ? "under 1 s" : duration(total);
    const share = availability(spans);
    const tally = share === null ? "" : bad.length ? `${percent(share)} available, down for ${length}` : "100 % available";
    set(this.body.from, `${duration(range)} ago`);
    set(this.body.tally, tally);
    this.body.strip.setAttribute("aria-label", `Last ${duration(range)}: ${tally || "no history"}`);
  }

  note(text) {
    if (!this.body) this.#addBody();
    set(this.body.note, text);
  }

  // While a forced check is under way, and while the exporter asks to wait. A disabled button would lose the focus.
  busy(isBusy) {
    this.head.force.setAttribute("aria-disabled", String(isBusy));
    set(this.head.force, isBusy ? "Checking…" : "Force check");
  }

  #tickForce() {
    if (!this.waitUntil) return;
    const left = this.waitUntil - Date.now();
    this.head.force.setAttribute("aria-disabled", String(left > 0));
    set(this.head.force, left > 0 ? `Wait ${duration(left + 999)}` : "Force check");
    if (left <= 0) this.waitUntil = 0;
  }

  #open(isOpen) {
    this.opened = isOpen;
    this.head.more.setAttribute("aria-expanded", String(isOpen));
    this.render();
    this.actions.drawn(this);
  }

  #addBody() {
    const body = document.getElementById("body").content.firstElementChild.cloneNode(true);
    this.element.firstElementChild.append(body);
    const names = "why because reason message note links latency spark session canary checked succeeded retries next bar";
    this.body = parts(body, [...names.split(" "), "strip", "from", "tally", "details", "changes"]);
    this.body.fold = body.querySelector("details");
    this.body.fold.addEventListener("toggle", () => this.#renderDetails());
  }

  #renderBody() {
    const { service, body } = this;
    body.why.hidden = !service.reason && !service.message;
    body.because.hidden = !service.causes?.length;
    set(body.because, becauseOf(service));
    writeLinks(body.links, service);
    set(body.reason, service.reason ?? "");
    body.reason.hidden = !service.reason;
    set(body.message, service.message ?? "");
    set(body.latency, latency(service.latency_seconds));
    set(body.retries, attempts(service));
    drawLatency(body.spark.firstElementChild, this.samples);
    this.#renderDetails();
  }

  #renderDetails() {
    if (!this.body.fold.open) return;
    const { details, changes } = this.body;
    const facts = Object.entries(this.service.details).map(([key, value]) => {
      const row = document.createElement("div");
      row.append(element("dt", key.replace(/(_timestamp)?_seconds$/, "").replaceAll("_", " ")), element("dd", asText(key, value)));
      return row;
    });
    details.replaceChildren(...facts);
    const rows = this.transitions.slice(0, CHANGES).map((one) => {
      const row = document.createElement("li");
      row.dataset.status = one.to;
      const why = [one.reason, one.message].filter(Boolean).join(": ");
      row.append(timeElement(one.at), element("strong", `${SIGNS[one.to]} ${one.to}`), why);
      return row;
    });
    changes.replaceChildren(...rows);
  }
}

function parts(root, names) {
  return Object.fromEntries(names.map((name) => [name, root.querySelector(`.${name}`)]));
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

// Writes only what differs: thousands of cards are updated each second.
function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setTime(node, timestamp, text) {
  set(node, text);
  if (timestamp && node.dateTime !== timestamp) {
    node.dateTime = timestamp;
    node.title = fullTime(Date.parse(timestamp));
  }
}

function attempts({ retry_count: count, retries, status }) {
  if (!count) return "none failed";
  return `${plural(count, "attempt")} failed${status === "disconnected" ? "" : `, down after ${retries}`}`;
}

function becauseOf({ causes }) {
  if (!causes?.length) return "";
  const first = exporter.status?.services[causes[0]];
  if (causes.length === 1 && first) return `because ${first.name} is ${first.status}`;
  return `because of ${listed(causes)}`;
}

function writeLinks(node, { description, links }) {
  const wanted = Object.entries(links ?? {});
  node.hidden = !wanted.length && !description;
  if (node.dataset.of === JSON.stringify([description, links])) return;
  node.dataset.of = JSON.stringify([description, links]);
  const anchors = wanted.filter(([, target]) => /^https?:/.test(target)).map(([name, target]) => {
    const anchor = element("a", name);
    anchor.href = target;
    anchor.rel = "noopener noreferrer";
    return anchor;
  });
  node.replaceChildren(...(description ? [element("span", description)] : []), ...anchors);
}

// Latencies survive a reload of the page, but not a longer absence.
function samplesOf(name) {
  try {
    const { at, samples } = JSON.parse(sessionStorage.getItem(`latency:${name}`));
    return Date.now() - at < KEPT_FOR ? samples : [];
  } catch {
    return [];
  }
}

function keepSamples(cards) {
  try {
    for (const card of cards) {
      if (card.samples.length) {
        sessionStorage.setItem(`latency:${card.service.name}`, JSON.stringify({ at: Date.now(), samples: card.samples }));
      }
    }
  } catch {} // a browser may forbid storage, or have no room
}
