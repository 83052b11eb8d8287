// The last orders of both twins. What it shows comes from `orders`, twice a second; every text is set as text, never as markup.

const cells = 100;
const every = 500;
const byId = (id) => document.getElementById(id);

/** Signs and words of how an order may stand, as `orders` names it. */
const standings = {
  settled: ["✓", "settled at once"],
  kept: ["○", "kept, to be verified later (202)"],
  settled_later: ["●", "kept, and settled later"],
  waiting: ["·", "waiting for an answer"],
  turned_away: ["×", "turned away: answered with an error"],
  failed: ["!", "failed: not answered, or wrongly"],
};
const short = {
  settled: "settled at once", kept: "kept", settled_later: "settled later", waiting: "waiting", turned_away: "turned away", failed: "failed",
};

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A twin's section with its empty cells, once. */
function makeTwin(name) {
  const twin = byId("twin").content.firstElementChild.cloneNode(true);
  setText(twin.querySelector("h2"), name);
  const grid = twin.querySelector(".grid");
  grid.setAttribute("aria-label", `Last orders of the ${name} twin`);
  for (let cell = 0; cell < cells; cell += 1) {
    grid.append(byId("cell").content.firstElementChild.cloneNode(true));
  }
  byId("twins").append(twin);
  return twin;
}

const twins = new Map();

function showTwin({ name, orders }, about) {
  if (!twins.has(name)) twins.set(name, makeTwin(name));
  const twin = twins.get(name);
  setText(twin.querySelector(".about"), about);
  const all = twin.querySelectorAll(".grid li");
  const newest = orders.length ? orders[orders.length - 1].number : null;
  const counts = {};
  for (const { number, standing } of orders) {
    const cell = all[number % cells];
    const [sign, words] = standings[standing];
    cell.dataset.standing = standing;
    cell.classList.toggle("newest", number === newest);
    setText(cell.querySelector(".sign"), sign);
    setText(cell.querySelector(".unseen"), `order ${number}: ${words}`);
    counts[standing] = (counts[standing] ?? 0) + 1;
  }
  const told = Object.keys(standings).filter((standing) => counts[standing]).map((standing) => `${counts[standing]} ${short[standing]}`);
  setText(twin.querySelector(".counts"), told.join(", ") || "no order yet");
}

function show(view) {
  const says = view.says ? `: ${view.says}` : "";
  setText(byId("phase"), `${view.scenario}, ${view.phase}${says}`);
  const admin = byId("admin");
  if (view.admin && admin.href !== view.admin) admin.href = view.admin;
  const about = { naive: `client: ${view.naive}`, resilient: view.breaker ? `circuit breaker: ${view.breaker}` : "resilient-client" };
  for (const twin of view.twins) showTwin(twin, about[twin.name] ?? "");
}

function link(text, how) {
  setText(byId("link"), text);
  byId("link").className = how;
}

for (const [standing, [sign, words]] of Object.entries(standings)) {
  const entry = byId("cell").content.firstElementChild.cloneNode(true);
  entry.dataset.standing = standing;
  setText(entry.querySelector(".sign"), sign);
  entry.querySelector(".unseen").className = "words";
  setText(entry.querySelector(".words"), words);
  byId("legend").append(entry);
}

let missed = 0;
for (;;) {
  try {
    const response = await fetch("orders", { cache: "no-store", signal: AbortSignal.timeout(3000) });
    show(await response.json());
    missed = 0;
    link("live", "live");
  } catch {
    missed += 1;
    // It may have been busy once.
    if (missed > 1) link("the demo has ended", "lost");
  }
  await new Promise((resolve) => setTimeout(resolve, every));
}
