// Words, signs, durations and clocks: how values look. Knows no element.

const SIGNS = {
  unknown: "?", healthy: "✓", connecting: "↻", unhealthy: "!", disconnected: "✕", degraded: "!", partial: "✕",
};
const SEVERITY = ["disconnected", "unhealthy", "connecting", "unknown", "healthy"];

// How far the exporter's clock is ahead of the browser's, in milliseconds: a phone's clock may be wrong.
let clockSkew = 0;

function now() {
  return Date.now() + clockSkew;
}

// The Date header has whole seconds only, so a small difference says nothing.
function learnClock(dateHeader) {
  const skew = Date.parse(dateHeader) - Date.now();
  clockSkew = Math.abs(skew) > 3000 ? skew : 0;
}

function duration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 && minutes < 10 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${hours / 24} d`;
}

// The larger unit alone, where there is little room.
function roughly(milliseconds) {
  return duration(milliseconds).split(" ").slice(0, 2).join(" ");
}

function ago(timestamp) {
  if (!timestamp) return "never";
  const age = now() - Date.parse(timestamp);
  return age < 1500 ? "just now" : `${roughly(age)} ago`;
}

function clock(milliseconds) {
  const then = new Date(milliseconds);
  const time = then.toLocaleTimeString("en-GB");
  return then.toDateString() === new Date().toDateString()
    ? time
    : `${then.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time}`;
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

// A detail of a service: its name tells the unit.
function asText(name, value) {
  if (typeof value === "number") {
    if (name.endsWith("timestamp_seconds")) return clock(value * 1000);
    if (name.endsWith("_seconds")) return value < 60 ? latency(value) : duration(value * 1000);
    return value.toLocaleString("en", { maximumSignificantDigits: Number.isInteger(value) ? 21 : 4 });
  }
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "–");
}
