// How values look: words, signs, durations and times. Touches no element.

const SIGNS = {
  unknown: "?", healthy: "✓", connecting: "↻", unhealthy: "!", disconnected: "✕", degraded: "!", partial: "✕",
};
const SEVERITY = ["disconnected", "unhealthy", "connecting", "unknown", "healthy"];

// The overall status in words that people use.
const OVERALL = {
  healthy: "All healthy", degraded: "Degraded", partial: "Partial outage", unknown: "Status unknown",
};
const ZONE = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" })
  .formatToParts(new Date()).find((part) => part.type === "timeZoneName").value;

function duration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 && minutes < 10 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${hours / 24} d`;
}

// The larger unit only, for where there is little room.
function roughly(milliseconds) {
  return duration(milliseconds).split(" ").slice(0, 2).join(" ");
}

function ago(timestamp) {
  if (!timestamp) return "never";
  const age = exporter.now() - Date.parse(timestamp);
  return age < 1500 ? "just now" : `${roughly(age)} ago`;
}

function clock(milliseconds) {
  const then = new Date(milliseconds);
  const time = then.toLocaleTimeString("en-GB");
  return then.toDateString() === new Date().toDateString()
    ? time
    : `${then.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time}`;
}

// With the date and the time zone, for a tooltip.
function fullTime(milliseconds) {
  return `${new Date(milliseconds).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" })} ${ZONE}`;
}

// A <time> element: short to read, exact and with the time zone in its tooltip.
function timeElement(timestamp, text) {
  const made = element("time", text ?? clock(Date.parse(timestamp)));
  made.dateTime = timestamp;
  made.title = fullTime(Date.parse(timestamp));
  return made;
}

function percent(share) {
  if (share >= 0.99995) return "100 %";
  return `${(Math.floor(share * 10000) / 100).toFixed(share > 0.99 ? 2 : 1)} %`;
}

function latency(seconds) {
  if (seconds === null) return "–";
  if (seconds >= 1) return `${seconds.toFixed(2)} s`;
  const milliseconds = seconds * 1000;
  return `${milliseconds.toFixed(milliseconds < 0.1 ? 2 : milliseconds < 10 ? 1 : 0)} ms`;
}

function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

// "a", "a and b", "a, b and 3 more"
function listed(names, most = 3) {
  const shown = names.length > most ? [...names.slice(0, most - 1), `${names.length - most + 1} more`] : names;
  return shown.length < 2 ? shown.join("") : `${shown.slice(0, -1).join(", ")} and ${shown[shown.length - 1]}`;
}

// A detail of a service. The unit is part of its name.
function asText(name, value) {
  if (typeof value === "number") {
    if (name.endsWith("timestamp_seconds")) return clock(value * 1000);
    if (name.endsWith("_seconds")) return value < 60 ? latency(value) : duration(value * 1000);
    return value.toLocaleString("en", { maximumSignificantDigits: Number.isInteger(value) ? 21 : 4 });
  }
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "–");
}
