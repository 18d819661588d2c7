// The page as a visitor meets it, in headless Chromium; run.sh says with what.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const { HEBBIAN, WORK, BROWSER, PYTHON } = process.env;
const require = createRequire(join(WORK, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const files = join(WORK, "files");

const BOUND = 2e-5; // activity of the engine and of the page
const STIMULI = 50; // held out, with EACH in one memory
const EACH = 5;

function hebbian(...words) {
  return execFileSync(HEBBIAN, words, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

// A safetensors file of one tensor `stimulus`.
function writeStimulus(path, values) {
  const data = { dtype: "F32", shape: [values.length], data_offsets: [0, 4 * values.length] };
  const header = Buffer.from(JSON.stringify({ stimulus: data }));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(header.length));
  writeFileSync(path, Buffer.concat([size, header, Buffer.from(Float32Array.from(values).buffer)]));
}

// What `hebbian recall` makes of stimuli, files or numbers, shown one after another: one answer for each.
function recalled(run, stimuli, half) {
  const paths = stimuli.map((stimulus, k) => {
    if (typeof stimulus === "string") return stimulus;
    const path = join(files, `stimulus-${k}.safetensors`);
    writeStimulus(path, stimulus);
    return path;
  });
  const how = ["--device", "cpu", "--quiet"];
  hebbian("recall", run, "forget", ...how);
  for (const path of paths) hebbian("recall", run, "present", path, ...how);
  return paths.map((path) => {
    const picture = ["--picture", join(files, "recall.png")];
    const answer = hebbian("recall", run, "complete", path, "--hide", half, "--json", ...picture, ...how);
    return JSON.parse(answer);
  });
}

function worst(found, wanted) {
  assert.equal(found.length, wanted.length);
  return found.reduce((most, value, k) => Math.max(most, Math.abs(value - wanted[k])), 0);
}

let passed = 0;
let failed = 0;
async function check(name, work) {
  const begun = performance.now();
  try {
    const note = await work();
    passed += 1;
    console.log(`ok   ${name}${note ? `: ${note}` : ""} (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}: ${error.stack ?? error}`);
  }
}

const browser = await chromium.launch({
  executablePath: BROWSER,
  // root has no sandbox
  args: [...(process.getuid() === 0 ? ["--no-sandbox"] : []), "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"],
});

// A page that says what it asked for and what it complained of.
// With `held` the browser's answer about an adapter waits until `page.release()`.
async function open(path, { gpu = true, held = false, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 1000 }, ...options });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    if (request.url() !== `file://${path}`) complaints.push(`asked for ${request.url().slice(0, 100)}`);
  });
  if (!gpu) {
    await page.addInitScript(() => Object.defineProperty(Navigator.prototype, "gpu", { get: () => undefined }));
  }
  if (held) {
    await page.addInitScript(() => {
      const gate = new Promise((open) => (globalThis.release = open));
      const ask = GPU.prototype.requestAdapter;
      GPU.prototype.requestAdapter = function (...how) {
        return gate.then(() => ask.apply(this, how));
      };
    });
  }
  await page.goto(`file://${path}`);
  await page.evaluate((held) => (held ? hebbian.ready : hebbian.device), held);
  return Object.assign(page, {
    release: () => page.evaluate(() => (release(), hebbian.device)),
    settle: () => page.evaluate(() => hebbian.settled()),
    says: () => page.textContent("#says"),
    answer: () => page.evaluate(() => Array.from(hebbian.answer)),
    finish: async () => {
      assert.deepEqual(complaints, []);
      await context.close();
    },
  });
}

async function press(page, button) {
  await page.click(button);
  await page.settle();
}

function exported(name, ...words) {
  const page = join(files, `${name}${words.length}.html`);
  const answer = JSON.parse(hebbian("export", join(files, name), "--page", page, "--json", "--quiet", ...words));
  return { page, bytes: answer.page.bytes, run: join(files, name) };
}

// The stimuli that a page offers.
function examplesOf({ page }) {
  const [, data] = readFileSync(page, "utf8").match(/id="network">(.*)<\/script>/);
  return JSON.parse(data).examples.map((text) => {
    const bytes = Uint8Array.from(Buffer.from(text, "base64"));
    return Array.from(new Float32Array(bytes.buffer));
  });
}

const images = exported("images", "--examples", String(STIMULI));

await check("a page of 16 by 16 pixels is below 3 MB", () => {
  assert.ok(images.bytes < 3e6);
  return `${images.bytes} bytes`;
});

for (const gpu of [true, false]) {
  const where = gpu ? "WebGPU" : "JavaScript";

  await check(`a recall, all of it on ${where}`, async () => {
    const begun = performance.now();
    const page = await open(images.page, { gpu });
    const ready = performance.now() - begun;
    await press(page, "#show");
    await press(page, "#recall");
    const seconds = (performance.now() - begun) / 1000;
    const device = await page.textContent("#device");
    assert.match(device, gpu ? /Runs on WebGPU .* own shaders/ : /in JavaScript: this browser has no WebGPU.*Chrome.*Safari.*Firefox/);
    const [wanted] = recalled(images.run, examplesOf(images).slice(0, 1), "bottom");
    const difference = worst(await page.answer(), wanted.y);
    assert.ok(difference <= BOUND, `${difference}`);
    assert.equal(await page.textContent("#error"), `${(100 * wanted.error).toFixed(1)}\u00a0%`);
    await page.finish();
    return `${seconds.toFixed(2)} s after opening, ready after ${(ready / 1000).toFixed(2)} s`;
  });

  await check(`${STIMULI} held-out stimuli, ${EACH} in a memory, as the engine recalls them, on ${where}`, async () => {
    const page = await open(images.page, { gpu });
    const stimuli = examplesOf(images);
    assert.equal(stimuli.length, STIMULI);
    let most = 0;
    for (let first = 0; first < STIMULI; first += EACH) {
      const half = ["top", "bottom", "left", "right"][(first / EACH) % 4];
      const group = stimuli.slice(first, first + EACH);
      const found = await page.evaluate(async ([values, half]) => {
        const { life } = hebbian;
        const arrays = values.map((one) => Float32Array.from(one));
        life.forget();
        for (const one of arrays) await life.show(one, null, 8);
        const answers = [];
        for (const one of arrays) answers.push(Array.from(await life.completeWithout(one, half)));
        return answers;
      }, [group, half]);
      const wanted = recalled(images.run, group, half);
      found.forEach((answer, k) => (most = Math.max(most, worst(answer, wanted[k].y))));
    }
    assert.equal(await page.evaluate(() => hebbian.life.onGpu), gpu);
    assert.ok(most <= BOUND, `${most}`);
    await page.finish();
    return `worst difference ${most.toExponential(1)} of ${BOUND}`;
  });

  for (const name of ["patterns", "oja", "modulated", "retroactive", "none", "linear", "softplus", "gelu"]) {
    await check(`the run "${name}" as the engine recalls it, on ${where}`, async () => {
      const file = exported(name);
      const page = await open(file.page, { gpu, reducedMotion: "reduce" });
      for (const k of [1, 2]) {
        await press(page, `[aria-label="Example ${k}"]`);
        await press(page, "#show");
      }
      await press(page, "#recall");
      const wanted = recalled(file.run, examplesOf(file).slice(0, 2), "bottom");
      const difference = worst(await page.answer(), wanted[1].y);
      assert.ok(difference <= BOUND, `${difference}`);
      assert.equal(await page.evaluate(() => hebbian.life.onGpu), gpu);
      await page.finish();
      return `difference ${difference.toExponential(1)}`;
    });
  }
}

await check("a recall before there is a device, and WebGPU goes on from it", async () => {
  const begun = performance.now();
  const page = await open(images.page, { held: true });
  await press(page, "#show");
  await press(page, "#recall");
  const seconds = (performance.now() - begun) / 1000;
  const [first] = recalled(images.run, examplesOf(images).slice(0, 1), "bottom");
  assert.ok(worst(await page.answer(), first.y) <= BOUND);
  assert.match(await page.textContent("#device"), /in JavaScript until WebGPU has started/);
  assert.equal(await page.evaluate(() => hebbian.life.onGpu), false);
  await page.release();
  assert.ok(await page.evaluate(() => hebbian.life.onGpu));
  await press(page, '[aria-label="Example 2"]');
  await press(page, "#show");
  await press(page, "#recall");
  const [, second] = recalled(images.run, examplesOf(images).slice(0, 2), "bottom");
  assert.ok(worst(await page.answer(), second.y) <= BOUND);
  await page.finish();
  return `${seconds.toFixed(2)} s after opening`;
});

// A picture of 96 by 96 pixels.
const picture = join(files, "picture.png");
await check("a dropped, an opened and a drawn picture", async () => {
  const page = await open(images.page, { gpu: false });
  const url = await page.evaluate(() => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 96;
    const context = canvas.getContext("2d");
    context.fillStyle = "#345";
    context.fillRect(0, 0, 96, 96);
    for (const [x, y, radius, colour] of [[30, 30, 26, "#fd8"], [70, 60, 20, "#b42"], [40, 80, 12, "#fff"]]) {
      context.fillStyle = colour;
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fill();
    }
    return canvas.toDataURL("image/png");
  });
  const bytes = Buffer.from(url.split(",")[1], "base64");
  writeFileSync(picture, bytes);
  const drop = (name, type, content) => page.evaluate(([name, type, content]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(content)], name, { type }));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    return hebbian.settled();
  }, [name, type, content]);
  const [wanted] = recalled(images.run, [picture], "right");
  for (const way of ["dropped", "opened"]) {
    await press(page, "#forget");
    if (way === "dropped") await drop("picture.png", "image/png", [...bytes]);
    else await page.setInputFiles("#file", picture);
    await page.settle();
    assert.match(await page.says(), /picture\.png, as the network sees it: 16 by 16 pixels/);
    await press(page, "#show");
    await page.check("[name=half][value=right]", { force: true });
    await press(page, "#recall");
    const difference = worst(await page.answer(), wanted.y);
    assert.ok(difference <= BOUND, `${way}: ${difference}`);
  }
  // what is no picture, and what is far too large, is told in a sentence; the picture stays
  await drop("notes.txt", "text/plain", [104, 105]);
  assert.match(await page.says(), /notes\.txt is no picture that this browser can read/);
  await page.evaluate(() => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(100 << 20)], "huge.png", { type: "image/png" }));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
    return hebbian.settled();
  });
  assert.match(await page.says(), /huge\.png has 100 MiB/);
  // a flat picture has nothing to remember
  await press(page, "#clear");
  await press(page, "#show");
  assert.match(await page.says(), /of one grey/);
  // drawn with the mouse
  await page.locator("#drawing").scrollIntoViewIfNeeded();
  const box = await page.locator("#drawing").boundingBox();
  await page.mouse.move(box.x + 0.3 * box.width, box.y + 0.2 * box.height);
  await page.mouse.down();
  await page.mouse.move(box.x + 0.6 * box.width, box.y + 0.8 * box.height, { steps: 12 });
  await page.mouse.up();
  const white = await page.evaluate(() => {
    const { data } = document.getElementById("drawing").getContext("2d").getImageData(0, 0, 16, 16);
    return data.filter((value, k) => k % 4 === 0 && value === 255).length;
  });
  assert.ok(white >= 8 && white <= 24, `${white} white pixels`);
  await press(page, "#forget");
  await press(page, "#show");
  await press(page, "#recall");
  assert.match(await page.says(), /Recalled .* error on what was hidden/);
  assert.equal(await page.locator("#memories li").count(), 1);
  await page.finish();
});

await check("memories fade, plasticity off and forgetting", async () => {
  const page = await open(images.page, { gpu: false });
  for (const k of [1, 2, 3, 4]) {
    await press(page, `[aria-label="Example ${k}"]`);
    await press(page, "#show");
  }
  const fading = await page.locator("#numbers tr").allTextContents();
  assert.equal(fading.length, 5);
  const firsts = await page.evaluate(() =>
    [...document.querySelectorAll("#numbers tr")].slice(1).map((row) => parseFloat(row.children[1].textContent)));
  assert.ok(firsts[3] > firsts[0], `${firsts}`);
  await press(page, "#recall");
  const error = async () => parseFloat(await page.textContent("#error"));
  const plastic = await error();
  await page.uncheck("#plastic");
  await page.settle();
  const without = await error();
  assert.ok(without > plastic + 5, `${without} and ${plastic}`);
  await page.check("#plastic");
  await page.settle();
  assert.equal(await error(), plastic);
  await press(page, "#wait");
  assert.match(await page.says(), /10 steps with nothing to see/);
  await press(page, "#forget");
  assert.equal(await page.textContent("#steps"), "0");
  assert.equal(await page.locator("#memories li").count(), 0);
  await page.finish();
  return `error ${plastic} %, without plasticity ${without} %; the first memory went from ${firsts[0]} to ${firsts[3]} %`;
});

// What the engine says of sequences: of a case that holds the network and them, `hebbian grad` tells.
function said(run, sequences, { length, bits, delay }) {
  hebbian("export", run, "--quiet", "--safetensors", join(files, "copy.safetensors"));
  const script = `
import json, numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
length, bits, delay = ${length}, ${bits}, ${delay}
sequences = np.array(${JSON.stringify(sequences)}, "f4")
obs = np.zeros((1, len(sequences), 2 * length + delay + 1, bits + 1), "f4")
obs[0, :, :length, :bits] = sequences.reshape(-1, length, bits)
obs[0, :, length + delay, bits] = 1
with safe_open("copy.safetensors", "np") as file:
    settings = json.loads(file.metadata()["settings"])
    case = {name: file.get_tensor(name)[None] for name in file.keys()}
steps, n = obs.shape[2], case["w"].shape[1]
case |= {"obs": obs, "target": np.zeros((1, len(sequences), steps, n), "f4")}
case["loss_weight"] = case["target"].copy()
words = {"rule": settings["rule"], "activation": settings["activation"], "clip": str(settings["clip"])}
save_file(case, "case.safetensors", words)
`;
  execFileSync(PYTHON, ["-c", script], { cwd: files });
  hebbian("grad", join(files, "case.safetensors"), "--out", join(files, "out.safetensors"), "--device", "cpu", "--quiet");
  const read = `
import json
from safetensors import safe_open
with safe_open("out.safetensors", "np") as file:
    print(json.dumps(file.get_tensor("out")[0, :, -${length}:].reshape(${sequences.length}, -1).tolist()))
`;
  return JSON.parse(execFileSync(PYTHON, ["-c", read], { cwd: files, encoding: "utf8" }));
}

const copy = exported("copy", "--examples", "12");
const sequence = { length: 4, bits: 3, delay: 6 };

for (const gpu of [true, false]) {
  await check(`12 held-out sequences, as the engine says them again, on ${gpu ? "WebGPU" : "JavaScript"}`, async () => {
    const page = await open(copy.page, { gpu, reducedMotion: "reduce" });
    const sequences = examplesOf(copy);
    const found = await page.evaluate(async ([all, delay]) => {
      const answers = [];
      for (const one of all) answers.push(await hebbian.life.sayAgain(Float32Array.from(one), delay));
      return answers;
    }, [sequences, sequence.delay]);
    const wanted = said(copy.run, sequences, sequence);
    const most = Math.max(...found.map((answer, k) => worst(answer, wanted[k])));
    assert.ok(most <= BOUND, `${most}`);
    assert.ok(Math.max(...wanted.flat().map(Math.abs)) > 0.1);
    assert.equal(await page.evaluate(() => hebbian.life.onGpu), gpu);
    await page.finish();
    return `${copy.bytes} bytes, worst difference ${most.toExponential(1)} of ${BOUND}`;
  });
}

await check("a sequence that is turned, waited for and said again, on a phone", async () => {
  const phone = { viewport: { width: 390, height: 844 }, colorScheme: "dark", reducedMotion: "reduce", hasTouch: true };
  const page = await open(copy.page, { gpu: false, ...phone });
  await page.tap('[aria-label="Example 2"]');
  await page.tap("#sequence button:nth-child(5)");
  const turned = examplesOf(copy)[1];
  turned[4] = -turned[4];
  await page.focus("#delay");
  await page.keyboard.press("ArrowLeft");
  await press(page, "#ask");
  const [wanted] = said(copy.run, [turned], { ...sequence, delay: 5 });
  assert.ok(worst(await page.evaluate(() => hebbian.said), wanted) <= BOUND);
  const wrong = wanted.filter((value, k) => !(value * turned[k] > 0)).length;
  assert.equal(await page.locator("#said .wrong").count(), wrong);
  assert.equal(await page.textContent("#error"), `${((100 * wrong) / 12).toFixed(1)}\u00a0%`);
  assert.match(await page.says(), new RegExp(`${12 - wrong} of 12 signs .* after 5 steps`));
  await page.click("#plastic");
  await press(page, "#ask");
  assert.deepEqual(await page.locator("#tries tr:last-child td").allTextContents().then(([, on]) => on), "off");
  await page.evaluate(() => (document.querySelector("details").open = true));
  const found = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`);
  assert.deepEqual(found.violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), []);
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth) <= 390);
  await page.finish();
});

await check("a device that is lost", async () => {
  const page = await open(images.page, { reducedMotion: "reduce" });
  await press(page, "#show");
  await page.evaluate(() => hebbian.life.runner.device.destroy());
  await press(page, "#recall");
  assert.match(await page.textContent("#device"), /in JavaScript: .*lost/);
  const [wanted] = recalled(images.run, examplesOf(images).slice(0, 1), "bottom");
  const difference = worst(await page.answer(), wanted.y);
  assert.ok(difference <= BOUND, `${difference}`);
  await page.finish();
});

await check("the keyboard alone", async () => {
  const page = await open(images.page, { gpu: false });
  const reach = async (selector) => {
    for (let presses = 0; presses < 100; presses += 1) {
      if (await page.evaluate((at) => document.activeElement.matches(at), selector)) return;
      await page.keyboard.press("Tab");
    }
    assert.fail(`no way to ${selector}`);
  };
  await reach("#drawing");
  for (const key of ["ArrowRight", "ArrowDown", " ", "ArrowDown", " ", "ArrowLeft", " "]) await page.keyboard.press(key);
  const drawn = await page.evaluate(() => document.querySelectorAll('#examples [aria-pressed="true"]').length);
  assert.equal(drawn, 0);
  await reach('[aria-label="Example 2"]');
  await page.keyboard.press("Enter");
  await reach("[name=brush]");
  await page.keyboard.press("ArrowRight");
  await reach("#show");
  await page.keyboard.press("Enter");
  await page.settle();
  await reach("[name=half]");
  await page.keyboard.press("ArrowLeft");
  await page.settle();
  await reach("#recall");
  await page.keyboard.press(" ");
  await page.settle();
  assert.match(await page.says(), /Recalled/);
  assert.equal(await page.getAttribute("#answer", "aria-label"), "The picture with its top half recalled");
  await reach("#chosen");
  const before = await page.textContent("#chosen-name");
  await page.keyboard.press("ArrowRight");
  assert.notEqual(await page.textContent("#chosen-name"), before);
  await page.finish();
});

for (const [name, options] of [
  ["a wide light screen", { colorScheme: "light" }],
  ["a phone of 390 pixels, dark, with a finger and reduced motion", {
    viewport: { width: 390, height: 844 }, colorScheme: "dark", reducedMotion: "reduce", hasTouch: true, isMobile: true,
    deviceScaleFactor: 2,
  }],
]) {
  await check(`axe finds nothing on ${name}`, async () => {
    const page = await open(images.page, { gpu: false, ...options });
    const act = async (selector) => {
      await (options.hasTouch ? page.tap(selector) : page.click(selector));
      await page.settle();
    };
    const violations = async () => {
      const found = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`);
      assert.deepEqual(found.violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), []);
    };
    await violations();
    for (const k of [1, 2, 3]) {
      await act(`[aria-label="Example ${k}"]`);
      await act("#show");
    }
    await act("#recall");
    await page.evaluate(() => (document.querySelector("details").open = true));
    await violations();
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= options.viewport?.width || !options.viewport, `${width} pixels wide`);
    await page.finish();
  });
}

await check("exports that cannot be are refused, and nothing is written", () => {
  const refused = (words, ...wanted) => {
    try {
      hebbian("export", ...words);
    } catch ({ status, stderr }) {
      assert.equal(status, 2);
      for (const word of wanted) assert.match(stderr, word);
      return;
    }
    assert.fail(`${words} was done`);
  };
  refused([images.run], /--page/, /--npz/);
  refused([join(files, "nothing"), "--page", "x.html"], /no run/);
  refused([images.run, "--npz", join(files, "x.npz"), "--network", "1"], /--network/, /below 1/);
  assert.ok(!readdirSync(files).includes("x.npz"));
});

await check("NumPy's lines of docs/page.md", () => {
  const text = readFileSync("docs/page.md", "utf8");
  const [, lines] = text.match(/```python\n([^]*?)```/);
  const notes = ["images", "patterns"].map((name) => {
    const { page, run } = exported(name);
    hebbian("export", run, "--quiet", "--npz", join(files, "network.npz"), "--safetensors", join(files, "network.safetensors"));
    const [stimulus] = examplesOf({ page });
    const check = `
from safetensors import safe_open
with safe_open("network.safetensors", "np") as other:
    assert json.loads(other.metadata()["settings"]) == json.loads(file["settings"].item())
    assert set(other.keys()) | {"settings"} == set(file.files)
    assert all((other.get_tensor(name) == file[name]).all() for name in other.keys())
print(json.dumps(answer.tolist()))
`;
    const script = `import numpy; numpy.save("stimulus.npy", numpy.array(${JSON.stringify(stimulus)}, "f4"))\n${lines}${check}`;
    const answer = execFileSync(PYTHON, ["-c", script], { cwd: files, encoding: "utf8" });
    const [wanted] = recalled(run, [stimulus], "bottom");
    const difference = worst(JSON.parse(answer.trim().split("\n").at(-1)), wanted.y);
    assert.ok(difference <= BOUND, `${name}: ${difference}`);
    return `${name} ${difference.toExponential(1)}`;
  });
  return `differences ${notes.join(", ")}`;
});

await check("every kernel compiles in Chromium", async () => {
  const folder = join(files, "shaders", "browser");
  const texts = ["streamed", "resident", "general"].flatMap((plan) => readdirSync(join(folder, plan)).map((name) =>
    [`${plan}/${name}`, readFileSync(join(folder, plan, name), "utf8")]));
  const own = readdirSync("shaders").filter((name) => name.endsWith(".wgsl"));
  const composed = new Set(texts.map(([name]) => name.split("/")[1]));
  assert.deepEqual(own.filter((name) => !composed.has(name)), []);
  const page = await open(images.page);
  const slowest = await page.evaluate(async (texts) => {
    const adapter = await navigator.gpu.requestAdapter();
    const { maxComputeWorkgroupStorageSize, maxStorageBuffersPerShaderStage } = adapter.limits;
    const requiredLimits = { maxComputeWorkgroupStorageSize, maxStorageBuffersPerShaderStage };
    const device = await adapter.requestDevice({ requiredLimits });
    let slowest = ["", 0];
    for (const [label, code] of texts) {
      const begun = performance.now();
      const module = device.createShaderModule({ label, code });
      const { messages } = await module.getCompilationInfo();
      const wrong = messages.filter(({ type }) => type === "error");
      if (wrong.length > 0) throw new Error(`${label}: ${wrong[0].lineNum}: ${wrong[0].message}`);
      await device.createComputePipelineAsync({ label, layout: "auto", compute: { module } });
      const seconds = (performance.now() - begun) / 1000;
      if (seconds > slowest[1]) slowest = [label, seconds];
    }
    device.destroy();
    return slowest;
  }, texts);
  await page.finish();
  return `${texts.length} texts, the slowest ${slowest[0]} in ${slowest[1].toFixed(1)} s`;
});

const updates = JSON.parse(readFileSync(join(files, "jobs.json"), "utf8"));
const runUpdate = readFileSync("tests/page/jobs.js", "utf8").replace(/^\/\/.*\n/gm, "");
for (const update of updates) {
  await check(`an update on the fixture ${update.name} in Chromium, by the plan ${update.plan}`, async () => {
    const page = await open(images.page);
    const found = await page.evaluate(`(${runUpdate})(${JSON.stringify(update)})`);
    await page.finish();
    let most = 0;
    for (const { buffer, name, at, values } of update.expected) {
      const norm = (each) => Math.sqrt(values.reduce((sum, value, k) => sum + each(value, k) ** 2, 0));
      const size = norm((value) => value);
      const error = norm((value, k) => found[buffer][at + k] - value) / (size || 1);
      assert.ok(error <= BOUND, `${buffer} ${name}: ${error}`);
      most = Math.max(most, error);
    }
    assert.ok(most > 0);
    return `worst relative error ${most.toExponential(1)} of ${BOUND}`;
  });
}

await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
