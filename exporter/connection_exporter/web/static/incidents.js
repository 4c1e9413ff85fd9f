// The incidents of all services in one list, newest first. Their histories are fetched when the list is opened.

const MOST_INCIDENTS = 50;
const MOST_SERVICES = 500;
const AT_ONCE = 6;

// An incident lasts from the first transition away from healthy to the next transition to healthy.
function incidentsOf(name, transitions) {
  const incidents = [];
  let open = null;
  for (const one of [...transitions].reverse()) {
    const isStart = one.from === "unknown" && one.to === "connecting";
    if (one.to === "healthy" || one.to === "unknown") {
      if (open) incidents.push({ ...open, until: one.at });
      open = null;
    } else if (!isStart && !open) {
      open = { name, from: one.at, until: null, worst: one.to, reason: one.reason, message: one.message };
    } else if (open && SEVERITY.indexOf(one.to) < SEVERITY.indexOf(open.worst)) {
      Object.assign(open, { worst: one.to, reason: one.reason, message: one.message });
    }
  }
  if (open) incidents.push(open);
  return incidents;
}

async function drawIncidents(list, note) {
  const names = Object.keys(exporter.status?.services ?? {}).slice(0, MOST_SERVICES);
  const found = [];
  set(note, "Loading…");
  const left = [...names];
  const load = async () => {
    for (let name = left.pop(); name !== undefined; name = left.pop()) {
      try {
        found.push(...incidentsOf(name, await exporter.history(name)));
      } catch {} // a service that a reload has removed meanwhile
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, load));
  found.sort((one, other) => (one.from < other.from ? 1 : -1));
  list.replaceChildren(...found.slice(0, MOST_INCIDENTS).map(incidentRow));
  const more = found.length > MOST_INCIDENTS ? `The last ${MOST_INCIDENTS} of ${found.length}.` : "";
  set(note, found.length ? more : "No incident is known.");
}

function incidentRow(incident) {
  const row = document.createElement("li");
  row.dataset.status = incident.worst;
  const until = incident.until ? Date.parse(incident.until) : exporter.now();
  const length = duration(until - Date.parse(incident.from));
  const why = [incident.reason, incident.message].filter(Boolean).join(": ");
  const causes = incident.until ? "" : becauseOf(exporter.status?.services[incident.name] ?? {});
  const how = incident.until ? `${incident.worst} for ${length}` : `${incident.worst}, for ${length} so far`;
  row.append(
    timeElement(incident.from),
    element("strong", `${SIGNS[incident.worst]} ${incident.name}`),
    element("span", how),
    element("span", [why, causes].filter(Boolean).join("; ")),
  );
  return row;
}
