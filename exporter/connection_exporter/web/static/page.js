// The page: keeps a card for each service, and draws the banner, the counts and the loss of the connection.

const MANY = 24;
const $ = (id) => document.getElementById(id);
const exporter = connect(".");
const cards = new Map();
const dirty = new Set();
const displaced = new Set();
const unannounced = [];
let wantedStatus = "";
let wantedWords = [];
let drawing = 0;
let lastInput = 0;
let announcedAt = 0;

const visibility = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const card = cards.get(entry.target.dataset.name);
    if (!card) continue;
    card.visible = entry.isIntersecting;
    if (card.visible) changed(card);
  }
}, { rootMargin: "200px" });

exporter.addCallback(({ type, name, transition }) => {
  const card = cards.get(name);
  if (type === "board") takeBoard();
  else if (type === "connection") drawConnection();
  else if (card) {
    card.update(exporter.status.services[name]);
    if (transition) {
      card.changed(transition);
      unannounced.push(transition);
    }
    displaced.add(card);
    changed(card);
  } else changed();
});

// Transitions may have been missed before a board, so histories are loaded again.
function takeBoard() {
  const { services } = exporter.status;
  for (const [name, card] of cards) {
    if (name in services) continue;
    visibility.unobserve(card.element);
    card.element.remove();
    cards.delete(name);
  }
  Object.values(services).forEach((service, index) => {
    let card = cards.get(service.name);
    if (card) {
      card.update(service);
      card.index = index;
      card.historyAsked = false;
    } else {
      card = new Card(service, index, { force, history, drawn });
      card.element.dataset.name = service.name;
      cards.set(service.name, card);
      visibility.observe(card.element);
    }
    displaced.add(card);
    dirty.add(card);
  });
  changed();
}

function changed(card) {
  if (card) dirty.add(card);
  // Not requestAnimationFrame: it pauses in a background tab, whose title must stay right.
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
  // Moving an element takes the focus from it. The list that it moved to is visible now.
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  announce();
}

// The list for a card: problems first, then one list for each group, in the order in which the config names them.
function listFor(card) {
  if (card.isProblem) return $("problems");
  const group = card.service.group ?? "";
  let list = document.querySelector(`#groups ul[data-group="${CSS.escape(group)}"]`);
  if (!list) {
    const section = $("group").content.firstElementChild.cloneNode(true);
    list = section.querySelector("ul");
    list.dataset.group = group;
    $("groups").append(section);
  }
  return list;
}

// Moves cards to where they belong, but not while somebody is about to click, unless that takes too long.
function place() {
  if (!displaced.size) return;
  const isStill = Date.now() - lastInput > 1200;
  const isFirst = [...displaced].some((card) => !card.element.isConnected);
  if (!isStill && !isFirst) return void setTimeout(changed, 400);
  const moving = new Map();
  for (const card of displaced) {
    const list = listFor(card);
    if (card.element.parentElement === list && card.placedAt === card.rank) continue;
    moving.set(list, [...(moving.get(list) ?? []), card]);
  }
  displaced.clear();
  for (const [list, incoming] of moving) {
    for (const card of incoming) card.element.remove();
    let next = list.firstElementChild;
    for (const card of incoming.sort((one, other) => one.rank - other.rank)) {
      while (next && cards.get(next.dataset.name).rank < card.rank) next = next.nextElementSibling;
      list.insertBefore(card.element, next);
      card.placedAt = card.rank;
    }
  }
}

function problems() {
  return [...cards.values()].filter((card) => card.isProblem).sort((one, other) => one.rank - other.rank);
}

function drawOverall() {
  const board = exporter.status;
  if (!board) return;
  const shown = exporter.connected ? board.status : "unknown";
  $("top").dataset.status = shown;
  set($("overall-sign"), SIGNS[shown]);
  set($("overall-word"), exporter.connected ? OVERALL[shown] : "Not known");
  set($("sentence"), exporter.connected ? sentence() : `Last known: ${OVERALL[board.status]}. ${sentence()}`);
  document.title = `${exporter.connected ? `${SIGNS[shown]} ${headline(shown)}` : "⚡ connection lost"} · connection-exporter`;
  const icon = favicon(board.status, exporter.connected);
  if ($("favicon").getAttribute("href") !== icon) $("favicon").setAttribute("href", icon);
}

// For the tab: "3 down" says more than the overall status.
function headline(status) {
  const bad = problems();
  const down = bad.filter((card) => card.service.status === "disconnected").length;
  if (down) return `${down} down`;
  return bad.length ? `${bad.length} not healthy` : OVERALL[status];
}

function sentence() {
  const bad = problems();
  if (!exporter.status.monitoring_active) return "Monitoring is not active.";
  if (!cards.size) return "No services are configured.";
  if (!bad.length) return cards.size === 1 ? "The only service is healthy." : `All ${cards.size} services are healthy.`;
  const worst = bad.filter((card) => card.service.status === bad[0].service.status);
  const names = listed(worst.map((card) => card.service.name));
  const others = bad.length - worst.length;
  const rest = others ? `, ${others} more not healthy` : "";
  const how = bad[0].service.status === "disconnected" ? "down" : bad[0].service.status;
  const healthy = `${cards.size - bad.length} of ${cards.size} healthy`;
  return `${undecided(bad)}${names} ${worst.length > 1 ? "are" : "is"} ${how}${rest}; ${healthy}.`;
}

// Which services leave the overall status unknown, if these are not the ones that are named anyway.
function undecided(bad) {
  const services = bad.map((card) => card.service).filter((service) => service.critical);
  const first = services.filter(({ status, last_success: success }) => status === "unknown" || (status === "connecting" && !success));
  if (exporter.status.status !== "unknown" || !first.length || first.includes(bad[0].service)) return "";
  return `No success yet of ${listed(first.map((service) => service.name))}. `;
}

function drawChips() {
  const counts = exporter.summary;
  if (!counts) return;
  for (const status of ["", ...SEVERITY]) {
    const chip = $("chips").querySelector(`[data-status="${status}"]`) ?? addChip(status);
    set(chip.querySelector("b"), String(status ? counts[status] : counts.total));
    chip.setAttribute("aria-pressed", String(wantedStatus === status));
    chip.classList.toggle("zero", Boolean(status) && !counts[status]);
  }
  for (const section of document.querySelectorAll("#services section")) {
    const list = section.querySelector("ul");
    const all = [...list.children];
    const shown = all.filter((card) => !card.hidden).length;
    section.hidden = !shown;
    const title = list.id === "problems" ? "Needs attention" : list.dataset.group || "Healthy";
    set(section.querySelector("h2"), `${title} (${shown === all.length ? shown : `${shown} of ${all.length}`})`);
  }
  document.body.classList.toggle("grouped", [...cards.values()].some((card) => card.service.group));
  $("nothing").hidden = [...cards.values()].some((card) => !card.element.hidden);
  set($("nothing"), cards.size ? "No service matches. Press Escape to clear the filter." : "No services are configured.");
}

function addChip(status) {
  const chip = document.createElement("button");
  chip.type = "button";
  chip.className = "chip";
  chip.dataset.status = status;
  chip.append(element("span", status ? SIGNS[status] : ""), element("b", ""), ` ${status || "all"}`);
  chip.addEventListener("click", () => {
    wantedStatus = wantedStatus === status ? "" : status;
    refilter();
  });
  $("chips").append(chip);
  return chip;
}

// For screen readers: several changes at once if they arrive together.
function announce() {
  if (!unannounced.length) return;
  if (Date.now() - announcedAt < 2000) return void setTimeout(announce, 2000);
  announcedAt = Date.now();
  const latest = new Map(unannounced.splice(0).map((one) => [one.name, one]));
  const texts = [...latest.values()].map((one) => [one.name, one.to, one.reason].filter(Boolean).join(" "));
  set($("said"), `${listed(texts, 5)}.`);
}

function drawConnection() {
  const wasLost = document.body.classList.contains("lost");
  const isLost = !exporter.connected && (exporter.status !== null || exporter.error !== null);
  document.body.classList.toggle("lost", isLost);
  set($("link-word"), exporter.connected ? "live" : isLost ? "offline" : "connecting");
  $("cut").hidden = !isLost;
  if (isLost !== wasLost) {
    set($("cut-what"), isLost ? "Lost connection to the exporter." : "");
    for (const card of cards.values()) changed(card);
  }
  tickConnection();
  changed();
}

function tickConnection() {
  if (!document.body.classList.contains("lost")) return;
  const left = exporter.nextAttempt - Date.now();
  const age = `This page shows the status of ${clock(exporter.lastHeard)}, ${duration(Date.now() - exporter.lastHeard)} ago.`;
  set($("cut-age"), exporter.lastHeard ? age : "");
  set($("cut-why"), exporter.error ?? "");
  set($("cut-next"), exporter.nextAttempt && left > 0 ? `Reconnecting in ${duration(left + 999)}.` : "Reconnecting…");
}

function uptime() {
  return Math.max((exporter.status?.uptime_seconds ?? 0) * 1000, 1);
}

function drawn(card) {
  card.drawHistory(uptime());
}

function refilter() {
  wantedWords = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const card of cards.values()) card.element.hidden = !card.matches(wantedWords, wantedStatus);
  drawChips();
}

async function history(card) {
  try {
    card.setHistory(await exporter.history(card.service.name));
    changed(card);
  } catch {
    card.historyAsked = false; // the connection notices that the exporter is gone
  }
}

async function force(card) {
  if (card.head.force.getAttribute("aria-disabled") === "true") return;
  card.busy(true);
  const { text, wait } = await forced(card.service.name);
  card.busy(false);
  card.waitUntil = wait ? Date.now() + wait * 1000 : 0;
  card.note(text ?? `Checked just now: ${card.service.status}.`);
  card.tick(exporter.connected);
  setTimeout(() => card.note(""), 5000);
}

async function forceAll() {
  const button = $("force-all");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  set(button, "Checking…");
  const { text, wait } = await forced();
  set($("force-all-note"), text ?? "All services were checked.");
  for (let left = wait ?? 0; left > 0; left -= 1) {
    set(button, `Wait ${left} s`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  set(button, "Force check all");
  button.setAttribute("aria-disabled", "false");
  setTimeout(() => set($("force-all-note"), ""), 5000);
}

async function forced(name) {
  try {
    await exporter.forceCheck(name);
    return {};
  } catch (error) {
    if (!(error instanceof ExporterError)) throw error;
    if (error.status !== 429) return { text: error.message };
    return { wait: error.retryAfter ?? 1, text: "Another check has just ended. Wait a moment." };
  }
}

let ticks = 0;
setInterval(() => {
  ticks += 1;
  tickConnection();
  for (const card of cards.values()) {
    if (!card.visible) continue;
    card.tick(exporter.connected);
    if (ticks % 10 === 0) card.drawHistory(uptime());
  }
  if (exporter.status) set($("uptime"), `up for ${duration(uptime())}`);
}, 1000);

$("force-all").addEventListener("click", forceAll);
$("retry-now").addEventListener("click", () => exporter.reconnect());
$("filter").addEventListener("input", refilter);
$("incidents").addEventListener("toggle", () => {
  if ($("incidents").open) drawIncidents($("incidents-list"), $("incidents-note"));
});
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
for (const event of ["online", "pageshow"]) addEventListener(event, () => exporter.reconnect());
addEventListener("pagehide", () => keepSamples(cards.values()));
document.addEventListener("visibilitychange", () => { if (!document.hidden) exporter.reconnect(); });
