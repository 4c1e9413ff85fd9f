// The two drawings of a card: latency as a line, and history as a strip with one path for each status.

const SVG = "http://www.w3.org/2000/svg";
const STRIP_WIDTH = 600;
const STRIP_HEIGHT = 20;
const RANGES = [5, 15, 60, 180, 360, 720, 1440].map((minutes) => minutes * 60000);
// The height says the same as the color, for people who cannot tell colors apart. Worse statuses are drawn over better ones.
const HEIGHTS = { unknown: 4, healthy: 8, connecting: 12, unhealthy: 16, disconnected: 20 };

function drawLatency(path, samples) {
  if (samples.length < 3) return path.removeAttribute("d");
  const top = Math.max(...samples) || 1;
  const step = 120 / (samples.length - 1);
  const points = samples.map((one, index) => `${(index * step).toFixed(1)} ${(22 - (one / top) * 20).toFixed(1)}`);
  path.setAttribute("d", `M${points.join("L")}`);
}

// The shortest range that shows everything that the exporter knows.
function rangeFor(uptime) {
  return RANGES.find((range) => uptime <= range) ?? RANGES[RANGES.length - 1];
}

// `transitions`: newest first. What was before the oldest is not known and stays empty.
function spansOf(transitions, end, range) {
  const spans = [];
  let until = end;
  for (const one of transitions) {
    const from = Date.parse(one.at);
    // Connecting for the first time is not a fault, and a status that is not known is not the service's fault.
    const isFault = !["healthy", "unknown"].includes(one.to) && !(one.to === "connecting" && one.from === "unknown");
    if (until > end - range) spans.push({ status: one.to, isFault, from: Math.max(from, end - range), until });
    until = Math.min(from, until);
  }
  return spans;
}

// The share of the known time in which a service was healthy; null if nothing is known, as before the first attempt ends.
function availability(spans) {
  const known = spans.filter((span) => span.isFault || span.status === "healthy");
  const total = known.reduce((sum, span) => sum + span.until - span.from, 0);
  const bad = known.filter((span) => span.isFault).reduce((sum, span) => sum + span.until - span.from, 0);
  return total > 0 ? 1 - bad / total : null;
}

function drawStrip(svg, spans, end, range) {
  const paths = {};
  for (const { status, isFault, from, until } of spans) {
    const height = HEIGHTS[status] ?? 0;
    const exact = ((until - from) / range) * STRIP_WIDTH;
    const width = isFault ? Math.max(exact, 3) : exact; // even a short fault must be visible
    const x = Math.min(STRIP_WIDTH - ((end - from) / range) * STRIP_WIDTH, STRIP_WIDTH - width);
    paths[status] = `${paths[status] ?? ""}M${x.toFixed(1)} ${STRIP_HEIGHT}v-${height}h${width.toFixed(1)}v${height}z`;
  }
  for (const status of Object.keys(HEIGHTS)) {
    let path = svg.querySelector(`[data-status=${status}]`);
    if (!path && paths[status]) {
      path = document.createElementNS(SVG, "path");
      path.dataset.status = status;
      const worse = [...svg.children].find((other) => HEIGHTS[other.dataset.status] > HEIGHTS[status]);
      svg.insertBefore(path, worse ?? null);
    }
    path?.setAttribute("d", paths[status] ?? "");
  }
}

// An icon for the tab, with a different shape for each status.
function favicon(status, isLive) {
  const style = getComputedStyle(document.documentElement);
  const known = { degraded: "unhealthy", partial: "disconnected" }[status] ?? status;
  const fill = style.getPropertyValue(`--${known}`).trim();
  const shapes = {
    healthy: '<path d="M9 17l5 5 10-12" fill="none" stroke="#fff" stroke-width="4"/>',
    degraded: '<path d="M16 7v11M16 22v4" stroke="#000" stroke-width="4"/>',
    partial: '<path d="M9 9l14 14M23 9L9 23" stroke="#fff" stroke-width="4"/>',
    unknown: '<path d="M11 12q0-5 5-5t5 5q0 3-5 6M16 22v4" fill="none" stroke="#fff" stroke-width="3.5"/>',
  };
  const ground = isLive
    ? `<rect width="32" height="32" rx="${status === "healthy" ? 16 : 6}" fill="${fill}"/>${shapes[status] ?? ""}`
    : '<rect x="2" y="2" width="28" height="28" rx="6" fill="#fff" stroke="#585862" stroke-width="3" stroke-dasharray="5 3"/>' +
      '<path d="M18 6l-7 11h5l-2 9 8-12h-5z" fill="#585862"/>';
  return `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="${SVG}" viewBox="0 0 32 32">${ground}</svg>`)}`;
}
