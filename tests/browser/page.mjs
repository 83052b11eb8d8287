// The admin page in a real browser. Started by tests/tests/admin_page.rs.
//
//   node page.mjs <server with the admin router> <server that is told what should happen> <token> [seconds of load]

import { readFile, mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const [, , server, stage, token, loadSeconds = "10"] = process.argv;
const screenshots = process.env.PAGE_SCREENSHOTS;
const soon = 15_000;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-precise-memory-info"],
});

async function tell(what) {
  const response = await fetch(`${stage}/tell/${what}`, { method: "POST" });
  if (!response.ok) throw new Error(`${what}: ${response.status}`);
}

function check(holds, what) {
  if (!holds) throw new Error(what);
}

/** Waits for something on the page, as its own script sees it. */
async function until(page, what, predicate, argument) {
  await page.waitForFunction(predicate, argument, { timeout: soon }).catch(() => {
    throw new Error(`not within ${soon / 1000} s: ${what}`);
  });
}

const troubles = [];

/** A page with the token given. */
async function open({ context: given, ...options } = {}) {
  const context = given ?? (await browser.newContext({ viewport: { width: 1200, height: 900 }, ...options }));
  const page = await context.newPage();
  page.on("request", (request) => {
    if (!request.url().startsWith(server)) troubles.push(`a request to ${request.url()}`);
  });
  page.on("pageerror", (error) => troubles.push(`an error on the page: ${error}`));
  page.on("console", (message) => {
    if (/Content Security Policy/.test(message.text())) troubles.push(message.text());
  });
  await page.goto(`${server}/admin`);
  await page.fill("#token", token);
  await page.keyboard.press("Enter");
  await until(page, "it is live", () => document.querySelector("#link").textContent === "live");
  return page;
}

const card = (name) => `.upstream:has(.name:text-is("${name}"))`;
const stateIs = ([name, state]) => {
  const cards = [...document.querySelectorAll(".upstream")];
  const card = cards.find((card) => card.querySelector(".name").textContent === name);
  return card?.querySelector(".state").textContent.startsWith(state);
};

async function violations(page) {
  await page.evaluate(axe);
  const result = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  return result.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" ")}`);
}

async function shoot(page, name) {
  if (!screenshots) return;
  await mkdir(screenshots, { recursive: true });
  await page.screenshot({ path: `${screenshots}/${name}.png` });
}

const stories = {
  async "it follows a breaker that opens and closes"() {
    const page = await open();
    await until(page, "closed at first", stateIs, ["http://users:3000", "closed"]);
    await tell("fail");
    await until(page, "open", stateIs, ["http://users:3000", "open"]);
    await until(page, "told", () => /closed to open/.test(document.querySelector("#entries").textContent));
    await shoot(page, "outage");
    await tell("heal");
    await until(page, "closed again", stateIs, ["http://users:3000", "closed"]);
    await page.context().close();
  },

  async "the story of a failed call is told in the report's words"() {
    const page = await open();
    const details = page.locator(card("http://users:3000")).locator("details");
    await details.locator("summary").click();
    await until(page, "explained", () => /#1 first at/.test(document.querySelector("details[open] .explained")?.textContent));
    await until(page, "transitions", () => /closed to open/.test(document.querySelector("details[open] .transitions")?.textContent));
    await shoot(page, "story");
    await page.context().close();
  },

  async "a breaker is forced with the keyboard alone"() {
    const page = await open();
    const here = page.locator(card("http://orders:3000"));
    await here.locator("summary").focus();
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await until(page, "forced open", stateIs, ["http://orders:3000", "forced open"]);
    await here.locator(".verb").selectOption("enable");
    await here.locator("button").click();
    await until(page, "enabled", stateIs, ["http://orders:3000", "closed"]);
    await page.context().close();
  },

  async "names are text, whatever they look like"() {
    const page = await open();
    const name = "<img src=x onerror=window.harmed=true>";
    await until(page, "shown", (name) => document.querySelector("#upstreams").textContent.includes(name), name);
    check((await page.locator("img").count()) === 0, "a name became an image");
    check((await page.evaluate(() => window.harmed)) === undefined, "a name ran");
    await page.context().close();
  },

  async "it goes on after the server was restarted"() {
    const page = await open();
    const before = await page.evaluate(() => performance.now());
    await tell("stop");
    await until(page, "lost", () => document.querySelector("#link").className === "lost");
    await sleep(1500);
    await tell("start");
    await until(page, "live again", () => document.querySelector("#link").textContent === "live");
    await until(page, "it counts", stateIs, ["http://users:3000", "closed"]);
    check((await page.evaluate(() => performance.now())) > before, "it was loaded anew");
    await page.context().close();
  },

  async "a server that takes connections and says nothing is not called live"() {
    const page = await open();
    await tell("hang");
    const lost = () => document.querySelector("#link").className === "lost";
    const told = page.waitForFunction(lost, null, { timeout: 4 * soon });
    await told.catch(() => check(false, "it is live, and nothing comes")).finally(() => tell("go"));
    await until(page, "live again", () => document.querySelector("#link").textContent === "live");
    await page.context().close();
  },

  async "in the background, where its timers are slow, two minutes stay two minutes"() {
    const context = await browser.newContext();
    // As a browser slows the timers of a page that nobody sees.
    await context.addInitScript(() => {
      window.setInterval = () => 0;
    });
    const page = await open({ context });
    const line = () => {
      const cards = [...document.querySelectorAll(".upstream")];
      const card = cards.find((card) => card.querySelector(".name").textContent === "http://users:3000");
      return card?.querySelector(".spark .all, .all")?.getAttribute("d");
    };
    const before = await page.evaluate(line);
    await page.waitForFunction(([before, name]) => {
      const cards = [...document.querySelectorAll(".upstream")];
      const card = cards.find((card) => card.querySelector(".name").textContent === name);
      return card?.querySelector(".all").getAttribute("d") !== before;
    }, [before, "http://users:3000"], { timeout: soon }).catch(() => {
      throw new Error("the line stood still");
    });
    await page.context().close();
  },

  async "search and sort show what is asked for"() {
    const page = await open();
    await page.fill("#search", "orders");
    await until(page, "one", () => document.querySelectorAll(".upstream").length === 1);
    await page.fill("#search", "nothing of the kind");
    await until(page, "none", () => !document.querySelector("#none").hidden);
    await page.fill("#search", "");
    await page.selectOption("#sort", "name");
    await until(page, "in order", () => {
      const names = [...document.querySelectorAll(".name")].map((name) => name.textContent);
      return names.length > 2 && names.every((name, n) => n === 0 || names[n - 1].localeCompare(name) <= 0);
    });
    await page.context().close();
  },

  async "nothing is in the way of whoever can't see or point, in either colour scheme, on a phone"() {
    for (const colorScheme of ["light", "dark"]) {
      for (const viewport of [{ width: 1200, height: 900 }, { width: 360, height: 740 }]) {
        const page = await open({ colorScheme, viewport });
        await until(page, "shown", () => document.querySelectorAll(".upstream").length > 2);
        await page.locator("summary").first().click();
        const found = await violations(page);
        check(found.length === 0, `${colorScheme} ${viewport.width}: ${found.join("\n")}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        check(wide <= 0, `${wide} px wider than the screen at ${viewport.width}`);
        await page.locator("summary").first().click();
        await shoot(page, `${colorScheme}-${viewport.width}`);
        await page.context().close();
      }
    }
  },

  async "a thousand upstreams and ten thousand events a second don't make it grow"() {
    const page = await open();
    await tell("crowd");
    await until(page, "all are shown", () => document.querySelectorAll(".upstream").length >= 1000);
    const session = await page.context().newCDPSession(page);
    const weigh = async () => {
      await session.send("HeapProfiler.collectGarbage");
      const { usedSize } = await session.send("Runtime.getHeapUsage");
      const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
      return { usedSize, nodes };
    };
    // What is remembered of two minutes is full after two minutes; so measure what is beyond it: elements, and their text.
    await sleep(3000);
    const before = await weigh();
    const rate = async () => (await fetch(`${stage}/tell/events`, { method: "POST" })).text();
    await rate();
    await sleep(Number(loadSeconds) * 1000);
    const after = await weigh();
    const events = await rate();
    const growth = after.usedSize / before.usedSize - 1;
    console.log(`  ${events} events a second, ${after.nodes} elements, heap ${(after.usedSize / 2 ** 20).toFixed(1)} MiB, ${(growth * 100).toFixed(0)} % more than ${loadSeconds} s before`);
    check(after.nodes <= before.nodes * 1.02, `elements grew from ${before.nodes} to ${after.nodes}`);
    // A second's counts of a thousand upstreams are three numbers each.
    const counts = 1000 * Number(loadSeconds) * 150;
    check(after.usedSize < before.usedSize * 1.25 + counts, `the heap grew from ${before.usedSize} to ${after.usedSize}`);
    await shoot(page, "crowd");
    await tell("quiet");
    await page.context().close();
  },
};

let failed = 0;
for (const [name, story] of Object.entries(stories)) {
  troubles.length = 0;
  try {
    await story();
    check(troubles.length === 0, troubles.join("\n"));
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}\n  ${error.message}`);
  }
}
await browser.close();
process.exitCode = failed === 0 ? 0 : 1;
