// What the page asks the exporter for beside /events: histories, and forced checks.

async function history(card) {
  try {
    const answer = await fetch(`health/service/${encodeURIComponent(card.service.name)}`, { cache: "no-store" });
    if (!answer.ok) return;
    card.setHistory((await answer.json()).transitions);
    changed(card);
  } catch {
    card.historyAsked = false; // the stream notices a lost exporter, and says so
  }
}

async function force(card) {
  if (card.head.force.getAttribute("aria-disabled") === "true") return;
  card.busy(true);
  const outcome = await forced(`?service=${encodeURIComponent(card.service.name)}`);
  card.busy(false);
  card.waitUntil = outcome.wait ? Date.now() + outcome.wait * 1000 : 0;
  card.note(outcome.text ?? `Checked just now: ${card.service.status}.`);
  card.tick(stream.live);
  setTimeout(() => card.note(""), 5000);
}

async function forceAll() {
  const button = $("force-all");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  set(button, "Checking…");
  const outcome = await forced("");
  set($("force-all-note"), outcome.text ?? "All are checked.");
  for (let left = outcome.wait ?? 0; left > 0; left -= 1) {
    set(button, `Wait ${left} s`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  set(button, "Force check all");
  button.setAttribute("aria-disabled", "false");
  setTimeout(() => set($("force-all-note"), ""), 5000);
}

async function forced(query) {
  try {
    const answer = await fetch(`health/force-check${query}`, { method: "POST" });
    if (answer.ok) {
      takeBoard(await answer.json(), false);
      return {};
    }
    if (answer.status !== 429) return { text: await problemOf(answer) };
    return { wait: Number(answer.headers.get("Retry-After")) || 1, text: "Somebody has just asked: wait a moment." };
  } catch {
    return { text: "The exporter could not be reached." };
  }
}
