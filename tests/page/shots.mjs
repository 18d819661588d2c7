// Pictures of the page's states, for docs/page; run.sh --shots says of which page and where to.
import { createRequire } from "node:module";
import { join } from "node:path";

const { WORK, BROWSER, PAGE, SHOTS } = process.env;
const { chromium } = createRequire(join(WORK, "package.json"))("playwright-core");
const browser = await chromium.launch({
  executablePath: BROWSER,
  // root has no sandbox
  args: [...(process.getuid() === 0 ? ["--no-sandbox"] : []), "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"],
});

const wide = { width: 1180, height: 900 };
const phone = { width: 390, height: 844 };
const press = async (page, button) => {
  await page.click(button);
  await page.evaluate(() => hebbian.settled());
};
const remember = async (page, examples) => {
  for (const k of examples) {
    await press(page, `[aria-label="Example ${k}"]`);
    await press(page, "#show");
  }
};
const look = (page, id) => page.evaluate((at) => document.getElementById(at).scrollIntoView(), id);

const states = {
  "ready-light": [wide, "light", async () => {}],
  "recall-dark": [wide, "dark", async (page) => {
    await remember(page, [3, 1]);
    await press(page, "#recall");
  }],
  "memories-light": [wide, "light", async (page) => {
    await remember(page, [1, 2, 3, 4, 5]);
    await press(page, "#wait");
    await look(page, "memories-title");
  }],
  "inside-dark": [wide, "dark", async (page) => {
    await remember(page, [1]);
    await look(page, "inside-title");
  }],
  "off-light": [wide, "light", async (page) => {
    await remember(page, [1]);
    await press(page, "#recall");
    await page.uncheck("#plastic");
    await page.evaluate(() => hebbian.settled());
  }],
  "phone-dark": [phone, "dark", async (page) => {
    await remember(page, [1]);
    await press(page, "#recall");
    await page.locator("#answer").evaluate((canvas) => canvas.parentElement.scrollIntoView());
  }],
  "refused-light": [phone, "light", async (page) => {
    await page.setInputFiles("#file", { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("words") });
    await page.evaluate(() => hebbian.settled());
  }],
};
for (const [name, [viewport, colorScheme, work]] of Object.entries(states)) {
  const context = await browser.newContext({ viewport, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  await page.goto(`file://${PAGE}`);
  await page.evaluate(() => hebbian.device);
  await work(page);
  await page.evaluate(() => document.activeElement.blur());
  await page.waitForTimeout(300);
  await page.screenshot({ path: join(SHOTS, `${name}.png`) });
  await context.close();
}
await browser.close();
