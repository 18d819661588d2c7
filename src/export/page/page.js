// The page, of whatever kind: what it says, the network's insides, the equations, the device.

const network = readNetwork();
const { settings, tensors, n } = network;
const life = new PageLife(network);
const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const few = (value) => Number(value.toPrecision(2)).toString();
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

function say(text, bad = false) {
  $("says").textContent = text;
  $("says").classList.toggle("bad", bad);
}

// One thing after another: a click during a show waits for its end.
let last = Promise.resolve();
function then(work) {
  last = last.then(work).catch((error) => say(`That did not work: ${error.message}.`, true));
  return last;
}

// Until the next picture of the screen; hidden pages draw none.
function frame() {
  return new Promise((done) => {
    requestAnimationFrame(done);
    setTimeout(done, 50);
  });
}

function paintTrace() {
  const most = largest(life.memory.h);
  paintSigned($("trace"), life.memory.h, n, most || 1);
  $("trace-scale").textContent = few(most);
  $("steps").textContent = life.steps;
  $("trace").setAttribute("aria-label", `The trace H after ${life.steps} steps, at most ${few(most)}`);
}

// w and alpha as matrices, also where they are shared.
function matrixOf(name) {
  const { values, shape } = tensors[name];
  if (shape[0] === n && shape[1] === n) return values;
  const { row, column } = strides(tensors[name]);
  return Float32Array.from({ length: n * n }, (_, k) =>
    values[Math.floor(k / n) * row + (k % n) * column]);
}
const matrices = { w: matrixOf("w"), alpha: matrixOf("alpha") };

function paintMatrices() {
  for (const [name, matrix] of Object.entries(matrices)) {
    const most = largest(matrix);
    paintSigned($(name), matrix, n, most || 1);
    $(`${name}-scale`).textContent = few(most);
    $(name).setAttribute("aria-label", `${name} of all connections, at most ${few(most)}`);
  }
}

// After a step: H as it changes, for those who like things to move.
async function drawStep() {
  if (reducedMotion.matches) return;
  paintTrace();
  await frame();
}

// A row of a table of numbers; its first cell names it.
function rowOf(cells, kind = "td") {
  const line = document.createElement("tr");
  line.append(...cells.map((text, k) => {
    const cell = document.createElement(k === 0 ? "th" : kind);
    cell.textContent = text;
    if (cell.tagName === "TH") cell.scope = kind === "td" ? "row" : "col";
    return cell;
  }));
  return line;
}

// The equations, in MathML.
function equations() {
  const it = (text) => `<mi>${text}</mi>`;
  const sub = (base, index) => `<msub>${it(base)}<mrow>${index}</mrow></msub>`;
  const at = (time) => `<mo>(</mo>${time}<mo>)</mo>`;
  const op = (sign) => `<mo>${sign}</mo>`;
  const one = "<mn>1</mn>";
  const [i, j, ij, t] = [it("i"), it("j"), it("i") + it("j"), it("t")];
  const before = at(t + op("&minus;") + one);
  const [x, y, eta] = [sub("x", i) + at(t), sub("y", j) + at(t), it("&eta;")];
  const [h, next] = [sub("H", ij) + at(t), sub("H", ij) + at(t + op("+") + one)];
  const m = sub("m", j) + at(t);
  const squared = `<msup><mrow>${sub("y", j)}</mrow><mn>2</mn></msup>`;
  const rules = {
    none: h,
    decay: `${op("(")}${one}${op("&minus;")}${eta}${op(")")}${h}${op("+")}${eta}${x}${y}`,
    oja: `${h}${op("+")}${eta}${op("(")}${x}${y}${op("&minus;")}${squared}${h}${op(")")}`,
    modulated: `${h}${op("+")}${m}${x}${y}`,
    retroactive: `${h}${op("+")}${m}${sub("E", ij)}${at(t)}`,
  };
  const sum = `<munder>${op("&sum;")}${i}</munder>`;
  const w = sub("w", ij);
  const alpha = sub("&alpha;", ij);
  const u = sub("u", j) + at(t);
  const bias = settings.bias ? `${op("+")}${sub("b", j)}` : "";
  const z = sub("z", j) + at(t);
  const [k, act] = [sub("k", j), (inner) => `<mi>${settings.activation}</mi>${op("(")}${inner}${op(")")}`];
  const leaks = (now, past) => `${op("(")}${one}${op("&minus;")}${k}${op(")")}${past}${op("+")}${k}${now}`;
  const v = sub("v", j);
  const activity = {
    rate: [`${y}${op("=")}${leaks(act(z), sub("y", j) + before)}`, "its activity, which leaks"],
    membrane: [`${v}${at(t)}${op("=")}${leaks(z, v + before)}${op(",")}${y}${op("=")}${act(v + at(t))}`,
      "its activity, of a membrane that leaks"],
  }[settings.leak] ?? [`${y}${op("=")}${act(z)}`, "its activity"];
  if (settings.recall?.clamped) activity[1] += "; where the picture is seen, the picture itself";
  const bound = settings.clip ? `, kept within \u00b1${settings.clip}` : "";
  const all = [
    [`${x}${op("=")}${sub("y", i)}${before}`, "what a neuron sends is its activity a step ago"],
    [`${sub("z", j)}${at(t)}${op("=")}${sum}${x}${op("(")}${w}${op("+")}${alpha}${h}${op(")")}${op("+")}${u}${bias}`,
      "what reaches neuron j: fixed and plastic connections, and what is shown, u"],
    activity,
    [`${next}${op("=")}${rules[settings.rule]}`, `the trace, by the rule \u201c${settings.rule}\u201d${bound}`],
  ];
  if (settings.rule === "retroactive") {
    const e = sub("E", ij);
    const grown = `${op("(")}${one}${op("&minus;")}${eta}${op(")")}${e}${at(t)}${op("+")}${eta}${x}${y}`;
    all.push([`${e}${at(t + op("+") + one)}${op("=")}${grown}`, "what has just been, ready to be written"]);
  }
  if (settings.rule === "retroactive" || settings.rule === "modulated") {
    const read = `<mi>tanh</mi>${op("(")}${sum}${sub("r", i)}${sub("y", i)}${at(t)}${op("+")}${it("r")}${op(")")}`;
    all.push([`${m}${op("=")}${sub("f", j)}${read}${op("+")}${sub("g", j)}`, "the neuromodulator, read from all activity"]);
  }
  $("equations").innerHTML = all
    .map(([math, words]) => `<div><math displaystyle="true">${math}</math><span class="hint">${words}</span></div>`)
    .join("");
}

function describeDevice() {
  const place = $("device");
  place.className = life.onGpu ? "gpu" : "script";
  let text;
  if (life.onGpu) {
    text = `Runs on WebGPU (${life.runner.adapter || "this device"}) by the training engine\u2019s own shaders; two `
      + `steps differ from JavaScript by ${life.difference.toExponential(0)}.`;
  } else if (life.why === null) {
    text = "Runs in JavaScript until WebGPU has started.";
  } else {
    text = `Runs in JavaScript: ${life.why}. The network is the same, without the engine\u2019s shaders. The newest `
      + "Chrome, Edge and Safari have WebGPU, and Firefox has it on most systems.";
  }
  text += " Nothing leaves your device.";
  if (place.textContent !== text) place.textContent = text;
}

// Between two things that a visitor does, the life moves to WebGPU.
async function startDevice() {
  const gpu = await life.findGpu();
  await then(() => {
    if (gpu) life.moveTo(gpu);
    describeDevice();
  });
}

// What is the same on every page, then the page's own `start`. Returns what the console has as `hebbian`:
// `await hebbian.device`, then what `hebbian.life` can do.
function begin(start) {
  const ready = then(() => {
    $("size").textContent = `${n} neurons and ${(n * n).toLocaleString("en")} connections`;
    document.title = document.querySelector("h1").textContent;
    $("origin").textContent = `Network ${settings.network} of a run of ${settings.trained}: task ${settings.task}, rule `
      + `${settings.rule}, ${settings.activation}. Made by hebbian export, version ${settings.version}.`;
    equations();
    start();
    describeDevice();
  });
  globalThis.hebbian = { network, life, ready, device: ready.then(startDevice), settled: () => last };
  return globalThis.hebbian;
}
