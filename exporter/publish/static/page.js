// The page: takes events in, keeps the cards, and writes the banner, the counts and the sign of being cut off.

const MANY = 24;
const $ = (id) => document.getElementById(id);
const cards = new Map();
const dirty = new Set();
const displaced = new Set();
const told = [];
let overall = null;
let wantedStatus = "";
let wantedWords = [];
let drawing = 0;
let lastInput = 0;
let toldAt = 0;
let lostAt = 0;

const stream = new Stream("events", take, drawLink);
const sight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const card = cards.get(entry.target.dataset.name);
    if (!card) continue;
    card.visible = entry.isIntersecting;
    if (card.visible) changed(card);
  }
}, { rootMargin: "200px" });

function take(event, data) {
  if (event === "board") {
    takeBoard(data, true);
  } else if (event === "transition") {
    const card = cards.get(data.name);
    if (!card) return;
    card.changed(data);
    displaced.add(card);
    told.push(data);
    changed(card);
  } else if (event === "service") {
    const card = cards.get(data.name);
    if (!card) return;
    card.update(data);
    displaced.add(card);
    changed(card);
  } else if (event === "overall") {
    overall = data;
    changed();
  }
}

// `isFresh`: transitions may have been missed, so histories are asked for again.
function takeBoard(board, isFresh) {
  const { services, ...rest } = board;
  overall = rest;
  for (const [name, card] of cards) {
    if (name in services) continue;
    sight.unobserve(card.element);
    card.element.remove();
    cards.delete(name);
  }
  Object.values(services).forEach((service, index) => {
    let card = cards.get(service.name);
    if (card) {
      card.update(service);
      card.index = index;
      if (isFresh) card.historyAsked = false;
    } else {
      card = new Card(service, index, { force, history, drawn });
      card.element.dataset.name = service.name;
      cards.set(service.name, card);
      sight.observe(card.element);
    }
    displaced.add(card);
    dirty.add(card);
  });
  changed();
}

function changed(card) {
  if (card) dirty.add(card);
  // Not requestAnimationFrame: it stands still in a background tab, whose title must stay right.
  drawing ||= setTimeout(draw, 40);
}

function draw() {
  drawing = 0;
  const isMany = cards.size > MANY;
  document.body.classList.toggle("many", isMany);
  for (const card of dirty) {
    card.compact = isMany;
    card.render();
    card.drawHistory(uptime());
    card.element.hidden = !card.matches(wantedWords, wantedStatus);
  }
  dirty.clear();
  const focused = document.activeElement;
  place();
  drawOverall();
  drawChips();
  // Moving an element takes the focus from it. By now the list that it came into is shown.
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  tell();
}

// Moves cards to where they belong, but not under a hand that is about to click, unless it takes too long.
function place() {
  if (!displaced.size) return;
  const still = Date.now() - lastInput > 1200;
  const isFirst = [...displaced].some((card) => !card.element.isConnected);
  if (!still && !isFirst) return void setTimeout(changed, 400);
  const scattered = [...displaced].filter((card) => card.place !== `${card.isProblem}${card.rank}`);
  displaced.clear();
  if (!scattered.length) return;
  for (const list of [$("problems"), $("well")]) {
    const wanted = list.id === "problems";
    const incoming = scattered.filter((card) => card.isProblem === wanted).sort((one, other) => one.rank - other.rank);
    for (const card of incoming) card.element.remove();
    let next = list.firstElementChild;
    for (const card of incoming) {
      while (next && cards.get(next.dataset.name).rank < card.rank) next = next.nextElementSibling;
      list.insertBefore(card.element, next);
      card.place = `${card.isProblem}${card.rank}`;
    }
  }
}

function drawOverall() {
  if (!overall) return;
  const shown = stream.live ? overall.status : "unknown";
  $("top").dataset.status = shown;
  set($("overall-sign"), SIGNS[shown]);
  set($("overall-word"), stream.live ? overall.status : "not known");
  set($("sentence"), stream.live ? sentence() : `Before this page was cut off: ${overall.status}. ${sentence()}`);
  const bad = [...cards.values()].filter((card) => card.isProblem).length;
  const title = stream.live ? `${SIGNS[shown]} ${bad ? `${bad} ` : ""}${shown}` : "⚡ cut off";
  document.title = `${title} · connection-exporter`;
  const icon = favicon(overall.status, stream.live);
  if ($("favicon").getAttribute("href") !== icon) $("favicon").setAttribute("href", icon);
}

function sentence() {
  const bad = [...cards.values()].filter((card) => card.isProblem).sort((one, other) => one.rank - other.rank);
  if (!overall.monitoring_active) return "Monitoring is not active.";
  if (!cards.size) return "No service is under watch.";
  if (!bad.length) return cards.size === 1 ? "The one service is healthy." : `All ${cards.size} services are healthy.`;
  const worst = bad.filter((card) => card.service.status === bad[0].service.status);
  const names = listed(worst.map((card) => card.service.name));
  const others = bad.length - worst.length;
  const rest = others ? `, ${others} more not healthy` : "";
  return `${names} ${worst.length > 1 ? "are" : "is"} ${bad[0].service.status}${rest}; ${cards.size - bad.length} of ${cards.size} healthy.`;
}

function drawChips() {
  const counts = Object.fromEntries(SEVERITY.map((status) => [status, 0]));
  for (const card of cards.values()) counts[card.service.status] += 1;
  const box = $("chips");
  for (const status of ["", ...SEVERITY]) {
    let chip = box.querySelector(`[data-status="${status}"]`);
    if (!chip) {
      chip = document.createElement("button");
      chip.type = "button";
      chip.className = "chip";
      chip.dataset.status = status;
      chip.append(element("span", status ? SIGNS[status] : ""), element("b", ""), ` ${status || "all"}`);
      chip.addEventListener("click", () => {
        wantedStatus = wantedStatus === status ? "" : status;
        refilter();
      });
      box.append(chip);
    }
    set(chip.querySelector("b"), String(status ? counts[status] : cards.size));
    chip.setAttribute("aria-pressed", String(wantedStatus === status));
    chip.classList.toggle("zero", Boolean(status) && !counts[status]);
  }
  for (const [id, title] of [["problems", "Needs attention"], ["well", "Healthy"]]) {
    const all = [...$(id).children]; // what is there, which for a moment may not be what belongs there
    const shown = all.filter((element) => !element.hidden).length;
    $(`${id}-part`).hidden = !shown;
    const count = shown === all.length ? shown : `${shown} of ${all.length}`;
    set($(`${id}-title`), `${title} (${count})`);
  }
  const isNothing = overall && ![...cards.values()].some((card) => !card.element.hidden);
  $("nothing").hidden = !isNothing;
  set($("nothing"), cards.size ? "No service is like that. Escape clears the filter." : "No service is under watch.");
}

// Reads changes out, several at once where they come together.
function tell() {
  if (!told.length) return;
  if (Date.now() - toldAt < 2000) return void setTimeout(tell, 2000);
  toldAt = Date.now();
  const latest = new Map(told.splice(0).map((one) => [one.name, one]));
  const said = [...latest.values()].map((one) => [one.name, one.to, one.reason].filter(Boolean).join(" "));
  set($("said"), `${listed(said, 5)}.`);
}

function drawLink() {
  const wasLost = document.body.classList.contains("lost");
  const isLost = !stream.live && (overall !== null || stream.why !== "");
  document.body.classList.toggle("lost", isLost);
  set($("link-word"), stream.live ? "live" : isLost ? "cut off" : "connecting");
  $("cut").hidden = !isLost;
  if (isLost && !wasLost) {
    lostAt = stream.heard;
    set($("cut-what"), "This page is cut off from the exporter.");
  }
  if (!isLost) set($("cut-what"), "");
  if (wasLost !== isLost) for (const card of cards.values()) changed(card);
  tickLink();
  changed();
}

function tickLink() {
  if (stream.live || !document.body.classList.contains("lost")) return;
  const left = stream.nextTry - Date.now();
  const age = overall ? `What it shows is from ${clock(lostAt)}, ${duration(Date.now() - lostAt)} ago.` : "";
  set($("cut-age"), age);
  set($("cut-why"), stream.why);
  set($("cut-next"), stream.nextTry && left > 0 ? `Trying again in ${duration(left + 999)}.` : "Trying again…");
}

function uptime() {
  return overall ? Math.max(overall.uptime_seconds * 1000, 1) : 1;
}

function drawn(card) {
  card.drawHistory(uptime());
}

function refilter() {
  wantedWords = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const card of cards.values()) card.element.hidden = !card.matches(wantedWords, wantedStatus);
  drawChips();
}

let ticks = 0;
setInterval(() => {
  ticks += 1;
  stream.look();
  tickLink();
  for (const card of cards.values()) {
    if (!card.visible) continue;
    card.tick(stream.live);
    if (ticks % 10 === 0) card.drawHistory(uptime());
  }
  if (overall) set($("uptime"), `exporter up for ${duration(uptime())}`);
}, 1000);

$("force-all").addEventListener("click", forceAll);
$("retry-now").addEventListener("click", () => stream.retryNow());
$("filter").addEventListener("input", refilter);
for (const event of ["pointermove", "pointerdown", "keydown"]) {
  addEventListener(event, () => { lastInput = Date.now(); }, { passive: true });
}
addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement;
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    $("filter").focus();
  } else if (event.key === "Escape" && (isTyping || wantedStatus || wantedWords.length)) {
    $("filter").value = "";
    wantedStatus = "";
    refilter();
  }
});
for (const event of ["online", "pageshow"]) addEventListener(event, () => stream.retryNow());
document.addEventListener("visibilitychange", () => { if (!document.hidden) stream.retryNow(); });
stream.run();
