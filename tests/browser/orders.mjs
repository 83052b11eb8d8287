// The demo's page of orders in a real browser. Started by examples/demo/tests/page.rs, with a demo that is held.
//
//   node orders.mjs <the page> <the admin page> <the demo's program>

import { execFile } from "node:child_process";
import { readFile, mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const [, , server, admin, demo] = process.argv;
const screenshots = process.env.PAGE_SCREENSHOTS;
const soon = 20_000;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const run = promisify(execFile);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

function check(holds, what) {
  if (!holds) throw new Error(what);
}

const troubles = [];

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("request", (request) => {
    if (!request.url().startsWith(server)) troubles.push(`a request to ${request.url()}`);
  });
  page.on("pageerror", (error) => troubles.push(`an error on the page: ${error}`));
  page.on("console", (message) => {
    if (/Content Security Policy/.test(message.text())) troubles.push(message.text());
  });
  await page.goto(server);
  await until(page, "it is live", () => document.querySelector("#link").textContent === "live");
  return page;
}

/** Waits for something on the page, as its own script sees it. */
async function until(page, what, predicate, argument) {
  await page.waitForFunction(predicate, argument, { timeout: soon }).catch(() => {
    throw new Error(`not within ${soon / 1000} s: ${what}`);
  });
}

/** How many cells of a twin stand so. */
const stand = ([twin, standings, atLeast]) => {
  const sections = [...document.querySelectorAll(".twin")];
  const section = sections.find((section) => section.querySelector("h2").textContent === twin);
  const cells = [...section.querySelectorAll(".grid li")];
  return cells.filter((cell) => standings.includes(cell.dataset.standing)).length >= atLeast;
};

async function shoot(page, name) {
  if (!screenshots) return;
  await mkdir(screenshots, { recursive: true });
  await page.screenshot({ path: `${screenshots}/orders-${name}.png` });
}

const stories = {
  async "both grids have a hundred cells, and every one is settled while all is well"() {
    const page = await open();
    const sizes = await page.evaluate(() => [...document.querySelectorAll(".grid")].map((grid) => grid.children.length));
    check(sizes.join() === "100,100", `cells: ${sizes}`);
    for (const twin of ["naive", "resilient"]) await until(page, `${twin} is well`, stand, [twin, ["settled"], 95]);
    // The very first may wait yet.
    const settled = page.locator('.grid li[data-standing="settled"]').first();
    const told = await settled.textContent({ timeout: soon });
    check(/^✓order \d+: settled at once$/.test(told), told);
    check((await page.locator("#admin").getAttribute("href")) === admin, "the admin page is linked");
    await page.context().close();
  },

  async "in an outage the naive one turns orders away, the resilient one keeps them and settles them later"() {
    const page = await open();
    await run(demo, ["fault", "user-service", "abort", "503"]);
    await until(page, "the naive one turns orders away", stand, ["naive", ["turned_away", "failed"], 60]);
    await until(page, "the resilient one keeps them", stand, ["resilient", ["kept"], 60]);
    const lost = await page.evaluate(stand, ["resilient", ["turned_away", "failed"], 1]);
    check(!lost, "the resilient one turned an order away");
    await until(page, "its breaker is told", () => /circuit breaker: (open|half-open)/.test(document.querySelector("#twins").textContent));
    await shoot(page, "outage");
    await run(demo, ["fault", "clear"]);
    await until(page, "they are settled later", stand, ["resilient", ["settled_later"], 1]);
    await until(page, "and the naive one is well again", stand, ["naive", ["settled"], 95]);
    await page.context().close();
  },

  async "nothing is in the way of whoever can't see or point, in either colour scheme, on a phone"() {
    await run(demo, ["fault", "user-service", "abort", "503", "50%"]);
    for (const colorScheme of ["light", "dark"]) {
      for (const viewport of [{ width: 1200, height: 900 }, { width: 360, height: 740 }]) {
        const page = await open({ colorScheme, viewport });
        await until(page, "the naive one turns orders away", stand, ["naive", ["turned_away"], 5]);
        await page.evaluate(axe);
        const result = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
        const found = result.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" ")}`);
        check(found.length === 0, `${colorScheme} ${viewport.width}: ${found.join("\n")}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        check(wide <= 0, `${wide} px wider than the screen at ${viewport.width}`);
        await shoot(page, `${colorScheme}-${viewport.width}`);
        await page.context().close();
      }
    }
    await run(demo, ["fault", "clear"]);
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
