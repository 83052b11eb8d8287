// The live page. What it shows comes from `snapshot` once and from `stream` then; every text is set as text, never as markup.

const at = new URL(".", import.meta.url);
const seconds = 119;
const shownEntries = 200;
/** How long the server may say nothing: it tells something every second, and answers at once. */
const patience = 10_000;
const byId = (id) => document.getElementById(id);

/** What is known of each upstream, and its card. */
const upstreams = new Map();
let token = sessionStorage.getItem("token") ?? "";
let process = null;
let lastEvent = null;
/** When the server told of what is drawn last: the line's seconds are the data's. */
let toldAt = null;
let wanted = "";
let order = "pain";

const key = (client, name) => JSON.stringify([client, name]);

/** Asks for JSON; asks for the token as long as that is refused. What hangs is as bad as what fails. */
async function ask(path, options = {}) {
  for (;;) {
    const headers = { ...(options.headers ?? {}) };
    // What can't stand in a header is no token.
    if (!/^[\x20-\x7e]*$/.test(token)) token = "";
    if (token) headers.authorization = `Bearer ${token}`;
    const signal = options.signal ?? AbortSignal.timeout(patience);
    const response = await fetch(new URL(path, at), { ...options, headers, signal, cache: "no-store" });
    if (response.status !== 401) return response;
    await askForToken();
  }
}

let asking = null;

/** One dialog, however many wait for it. */
function askForToken() {
  asking ??= new Promise((resolve) => {
    byId("refused").textContent = token ? "Another token is needed." : "";
    const dialog = byId("ask");
    const closed = () => {
      token = byId("token").value;
      sessionStorage.setItem("token", token);
      byId("token").value = "";
      asking = null;
      resolve();
    };
    dialog.addEventListener("close", closed, { once: true });
    dialog.showModal();
  });
  return asking;
}

/** How an upstream does, in one of four words; and how urgently somebody should look, highest first. */
function health(row) {
  const { state } = row.breaker;
  const success = row.effective.success;
  if (row.breaker.forced || state === "disabled") return "held";
  if (state === "open" || (success !== null && success < 0.9)) return "sick";
  const endpoints = row.endpoints.some((endpoint) => endpoint.breaker.state === "open" || endpoint.silent_for !== null);
  const overload = row.overload?.limit != null || row.overload?.silent_for != null;
  const ailing = state === "half_open" || endpoints || row.held_back > 0 || overload;
  return ailing || (success !== null && success < 0.995) ? "ailing" : "well";
}

function pain(row) {
  const lost = row.effective.success === null ? 0 : 1 - row.effective.success;
  const rank = { sick: 3, ailing: 2, held: 1, well: 0 }[health(row)];
  return rank * 1e9 + lost * row.effective.per_second * 1e3 + row.queued;
}

/** What a call that is queued waits for. */
const waits = {
  addresses: ", waits for addresses", rate: ", waits for its turn in the rate", place: ", waits for a place",
  overload: ", waits for a place at an overloaded upstream", answer: ", waits for an answer of a silent upstream",
  breaker: ", waits for the breaker",
};

const words = {
  closed: "closed", open: "open", half_open: "half-open", disabled: "disabled",
  forced_open: "forced open", forced_closed: "forced closed",
};

function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 10000) return `${(value / 1000).toFixed(0)} s`;
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  return value >= 10 ? `${value.toFixed(0)} ms` : `${value.toFixed(1)} ms`;
}

const perSecond = (value) => `${value >= 10 ? value.toFixed(0) : value.toFixed(1)}/s`;
const percent = (share) => (share === null ? "" : `, ${(share * 100).toFixed(share < 0.9995 && share > 0.99 ? 1 : 0)} % succeed`);
const clock = (at) => new Date(at).toTimeString().slice(0, 8);

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function stateOf(row) {
  const parts = [words[row.breaker.state] ?? row.breaker.state];
  if (row.breaker.observe_only) parts.push("observes only");
  if (row.breaker.open_for > 0) parts.push(`next probe in ${ms(row.breaker.open_for)}`);
  if (row.held_back > 0) parts.push(`asked for a wait of ${ms(row.held_back)}`);
  if (row.overload?.limit != null) parts.push(`overloaded: ${row.overload.limit} at a time`);
  if (row.overload?.silent_for != null) parts.push(`silent for ${ms(row.overload.silent_for)}, calls wait for its answer`);
  return parts.join(", ");
}

/** A card for an upstream, once. */
function makeCard(known) {
  const card = byId("upstream").content.firstElementChild.cloneNode(true);
  const find = (selector) => card.querySelector(selector);
  known.card = card;
  known.parts = {
    name: find(".name"), client: find(".client"), state: find(".state"), volume: find(".volume"), mark: find(".mark"),
    spark: find(".spark"), all: find(".spark .all"), bad: find(".spark .bad"), effective: find(".effective"),
    actual: find(".actual"), latency: find(".latency"), flight: find(".flight"), meter: find("meter"),
    budget: find(".budget span"), refused: find(".refused"), refusals: find(".refusals"), endpoints: find(".endpoints"),
    details: find("details"), whose: find(".whose"), output: find("output"),
  };
  setText(known.parts.name, known.row.name);
  setText(known.parts.client, `client ${known.row.client}`);
  known.parts.details.addEventListener("toggle", () => showStory(known));
  find(".control").addEventListener("submit", (event) => {
    event.preventDefault();
    control(known, find(".verb").value, known.parts.whose.value);
  });
}

const marks = { well: "", ailing: "M-22 0H22", sick: "M-18 -18L18 18M18 -18L-18 18", held: "M-10 -18V18M10 -18V18" };

function showCard(known) {
  const { row, parts } = known;
  const how = health(row);
  if (known.card.dataset.health !== how) {
    known.card.dataset.health = how;
    parts.mark.setAttribute("d", marks[how]);
  }
  // Its area tells the volume, by its logarithm: from one call in ten seconds to ten thousand a second.
  const volume = Math.min(1, Math.log10(1 + row.effective.per_second * 10) / 5);
  parts.volume.setAttribute("r", String(Math.round(8 + 38 * Math.sqrt(volume))));
  setText(parts.state, stateOf(row));
  setText(parts.effective, perSecond(row.effective.per_second) + percent(row.effective.success));
  const more = [];
  if (row.actual.retries > 0) more.push(`${perSecond(row.actual.retries)} retries`);
  if (row.actual.hedges > 0) more.push(`${perSecond(row.actual.hedges)} hedges`);
  const extra = more.length ? `, of these ${more.join(" and ")}` : "";
  setText(parts.actual, perSecond(row.actual.per_second) + percent(row.actual.success) + extra);
  setText(parts.latency, [row.latency.p50, row.latency.p90, row.latency.p99].map(ms).join(" / "));
  const waiting = row.queued + row.waiting_for_ready;
  const limit = row.limit === null ? "" : ` of ${row.limit}`;
  setText(parts.flight, `${row.in_flight}${limit}${waiting ? `, ${waiting} wait` : ""}`);
  const budget = row.budget === null ? "no limit" : `${row.budget.toFixed(1)} of ${row.budget_capacity}`;
  parts.meter.hidden = row.budget === null;
  parts.meter.value = row.budget === null ? 0 : row.budget / row.budget_capacity;
  parts.meter.setAttribute("aria-label", `Budget for extra attempts: ${budget}`);
  setText(parts.budget, budget);
  const refused = Object.entries(row.refused).map(([why, count]) => `${count} ${why.replaceAll("_", " ")}`);
  parts.refusals.hidden = refused.length === 0;
  setText(parts.refused, refused.join(", "));
  showEndpoints(known);
  showSpark(known);
}

function showEndpoints({ row, parts, card }) {
  const list = parts.endpoints;
  while (list.children.length > row.endpoints.length) list.lastElementChild.remove();
  row.endpoints.forEach((endpoint, index) => {
    const item = list.children[index] ?? list.appendChild(document.createElement("li"));
    const { state, forced } = endpoint.breaker;
    const ails = state === "half_open" || endpoint.failing > 0.1 || endpoint.silent_for !== null;
    const sick = state === "open" ? "sick" : ails ? "ailing" : "well";
    item.dataset.health = forced || state === "disabled" ? "held" : sick;
    const silent = endpoint.silent_for === null ? "" : `, silent for ${ms(endpoint.silent_for)}`;
    setText(item, `${endpoint.origin} ${words[state] ?? state}, ${endpoint.in_flight} in flight, ${ms(endpoint.latency)}${silent}`);
  });
  const options = ["", ...row.endpoints.map((endpoint) => endpoint.origin)];
  const whose = parts.whose;
  if (whose.dataset.options !== options.join("\n")) {
    whose.dataset.options = options.join("\n");
    whose.replaceChildren(...options.map((origin) => new Option(origin || "the upstream", origin)));
  }
  card.querySelector(".of").hidden = options.length === 1;
}

function showSpark({ parts, past }) {
  const most = Math.max(1, ...past.map(([good, bad, refused]) => good + bad + refused));
  const y = (count) => (32 - (30 * count) / most).toFixed(1);
  const start = seconds - past.length;
  const line = past.map(([good, bad, refused], x) => `${x ? "L" : "M"}${start + x} ${y(good + bad + refused)}`);
  parts.all.setAttribute("d", line.join(""));
  const lost = past.map(([, bad, refused], x) => (bad + refused ? `M${start + x} 32h1V${y(bad + refused)}h-1z` : ""));
  parts.bad.setAttribute("d", lost.join(""));
  const sum = past.reduce((all, [good, bad, refused]) => [all[0] + good + bad + refused, all[1] + bad + refused], [0, 0]);
  parts.spark.setAttribute("aria-label", `Last two minutes: ${sum[0]} calls, ${sum[1]} lost; at most ${most} in a second`);
}

function take(row, past) {
  const id = key(row.client, row.name);
  const known = upstreams.get(id) ?? { past: [], card: null, changed: true };
  known.row = row;
  known.fresh = true;
  if (past) known.past = past.slice(-seconds);
  if (!known.card) makeCard(known);
  known.changed = true;
  upstreams.set(id, known);
}

function forget(client, name) {
  const known = upstreams.get(key(client, name));
  known?.card.remove();
  upstreams.delete(key(client, name));
}

/**
 * Another second, as the server counts them: a page in the background has a clock that runs slowly, and the data hasn't.
 * Who wasn't told of has done nothing more than before.
 */
function goOn() {
  for (const known of upstreams.values()) {
    const last = known.fresh ? known.row.last : known.row.last.every((count) => count === 0) ? [0, 0, 0] : known.row.last;
    known.past.push(last);
    if (known.past.length > seconds) known.past.shift();
    known.fresh = false;
    // A line that moves is drawn again as long as there is anything on it.
    known.changed ||= known.past.some((second) => second[0] + second[1] + second[2] > 0);
  }
}

/** Draws what changed, the worst first. */
function draw() {
  const list = byId("upstreams");
  const fits = (row) => `${row.name} ${row.client}`.toLowerCase().includes(wanted);
  const all = [...upstreams.values()].filter((known) => fits(known.row));
  const by = {
    pain: (a, b) => pain(b.row) - pain(a.row),
    volume: (a, b) => b.row.effective.per_second - a.row.effective.per_second,
    name: () => 0,
  }[order];
  all.sort((a, b) => by(a, b) || a.row.name.localeCompare(b.row.name) || a.row.client.localeCompare(b.row.client));
  // Nobody's card moves away under a hand or a reader.
  const held = list.contains(document.activeElement) || list.matches(":hover");
  const here = new Set(all);
  for (const known of upstreams.values()) if (!here.has(known)) known.card.remove();
  let before = null;
  for (const known of all) {
    const next = before ? before.nextElementSibling : list.firstElementChild;
    if (!known.card.isConnected || (!held && next !== known.card)) list.insertBefore(known.card, held ? null : next);
    before = known.card;
    if (known.changed) showCard(known);
    known.changed = false;
  }
  byId("none").hidden = all.length > 0;
  const sum = (read) => all.reduce((whole, known) => whole + read(known.row), 0);
  const open = all.filter(({ row }) => row.breaker.state.endsWith("open")).length;
  const rate = sum((row) => row.effective.per_second);
  setText(byId("totals"), `${all.length} shown, ${perSecond(rate)} calls, ${sum((row) => row.in_flight)} in flight, ${open} not closed`);
}

function showEntry(entry) {
  const list = byId("entries");
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.dateTime = new Date(entry.at).toISOString();
  time.textContent = clock(entry.at);
  item.append(time, ` ${entry.client}${entry.upstream && ` ${entry.upstream}`}: ${entry.text}`);
  list.prepend(item);
  while (list.children.length > shownEntries) list.lastElementChild.remove();
  lastEvent = entry.id;
}

async function showStory(known) {
  if (!known.parts.details.open) return;
  const { client, name } = known.row;
  const response = await ask(`snapshot?client=${encodeURIComponent(client)}&upstream=${encodeURIComponent(name)}`);
  if (!response.ok) return;
  const [of] = (await response.json()).clients;
  const [{ story }] = of.upstreams;
  const list = (selector, items) => known.card.querySelector(selector).replaceChildren(...items);
  const item = (...parts) => {
    const li = document.createElement("li");
    li.append(...parts);
    return li;
  };
  const pre = (text) => {
    const block = document.createElement("pre");
    block.textContent = text;
    return block;
  };
  list(".transitions", story.transitions.toReversed().map((t) =>
    item(`${clock(t.at)} ${t.endpoint ?? ""} ${words[t.from] ?? t.from} to ${words[t.to] ?? t.to}: ${t.cause}`)));
  list(".explained", story.calls.toReversed().map((call) => item(`${clock(call.at)} ${call.end}`, pre(call.report))));
  const under = (call) =>
    item(`${call.doing.replaceAll("_", " ")}${waits[call.waits_for] ?? ""} for ${ms(call.doing_for)}, begun ${ms(call.age)} ago, ${call.attempts} attempts`);
  list(".oldest", of.calls.oldest.slice(0, 20).map(under));
  list(".held", of.calls.old_bodies.slice(0, 20).map(under));
  known.card.querySelector(".holders").hidden = of.calls.old_bodies.length === 0;
  setText(known.card.querySelector(".connections"), connections(of.connections));
}

/** Of the whole client, as a pool is. */
function connections(of) {
  if (of === null) return "This transport does not tell of its connections.";
  const many = (count, what) => (count > 0 ? `, ${count} ${what}` : "");
  return `${of.open} open of ${of.made} made by the client` +
    many(of.failed - of.timed_out, "failed") + many(of.timed_out, "not made in time") +
    many(of.retired, "retired after timeouts") + many(of.sent_away, "sent away by the server") +
    many(of.closed, "closed otherwise") + many(of.pings, `pings, ${of.pongs} answered`);
}

async function control(known, verb, endpoint) {
  const { client, name } = known.row;
  const command = { client, upstream: name, endpoint: endpoint || undefined, update_state: verb };
  const headers = { "content-type": "application/json" };
  const response = await ask("circuitbreakers", { method: "POST", headers, body: JSON.stringify(command) });
  const answer = await response.json();
  const done = response.ok ? `now ${words[answer.breaker.state] ?? answer.breaker.state}` : answer.detail;
  setText(known.parts.output, done);
  showStory(known);
}

async function loadSnapshot() {
  const response = await ask("snapshot");
  const snapshot = await response.json();
  if (!response.ok) throw new Error(snapshot.detail);
  toldAt = snapshot.at;
  const here = new Set();
  for (const client of snapshot.clients) {
    for (const { seconds: past, ...row } of client.upstreams) {
      take(row, past);
      here.add(key(row.client, row.name));
    }
  }
  for (const known of [...upstreams.values()]) {
    if (!here.has(key(known.row.client, known.row.name))) forget(known.row.client, known.row.name);
  }
  if (snapshot.process !== process) {
    process = snapshot.process;
    byId("entries").replaceChildren();
    const events = await (await ask("events")).json();
    events.events.slice(-shownEntries).forEach(showEntry);
    lastEvent = events.newest;
  }
  draw();
}

const heard = {
  hello: async (data) => {
    if (data.process !== process) await loadSnapshot();
  },
  gap: loadSnapshot,
  entry: (data) => showEntry(data),
  tick: async (data) => {
    const passed = toldAt === null ? 1 : Math.round((data.at - toldAt) / 1000);
    toldAt = data.at;
    for (const row of data.rows) take(row);
    for (const [client, name] of data.gone) forget(client, name);
    // Seconds that nobody told of are known where all of them are.
    if (passed > 1) return loadSnapshot();
    goOn();
    if (!document.hidden) draw();
  },
};

/** Reads server-sent events with fetch: EventSource can't bear a token. */
async function listen() {
  const headers = lastEvent === null ? {} : { "last-event-id": String(lastEvent) };
  const begun = new AbortController();
  const hung = setTimeout(() => begun.abort(), patience);
  const response = await ask("stream", { headers, signal: begun.signal });
  clearTimeout(hung);
  if (!response.ok) throw new Error((await response.json()).detail);
  linked("live");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    // There is a tick every second; a connection without one is dead, whatever it looks like.
    const silence = setTimeout(() => begun.abort(), patience);
    const { done, value } = await reader.read();
    clearTimeout(silence);
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const field = (name) => lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trimStart());
      const [name] = field("event");
      const data = field("data").join("\n");
      if (heard[name]) await heard[name](JSON.parse(data));
    }
  }
}

function linked(how) {
  const told = { live: "live", lost: "connection lost, trying again", connecting: "connecting" };
  const link = byId("link");
  link.className = how;
  setText(link, told[how]);
}

async function run() {
  for (;;) {
    try {
      await loadSnapshot();
      await listen();
      linked("connecting");
    } catch {
      linked("lost");
    }
    // However it ended: a stream that ends at once must not be asked for without a pause.
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

byId("filter").addEventListener("submit", (event) => event.preventDefault());
byId("search").addEventListener("input", (event) => {
  wanted = event.target.value.toLowerCase();
  draw();
});
byId("sort").addEventListener("change", (event) => {
  order = event.target.value;
  draw();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) draw();
});
run();
