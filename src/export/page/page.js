// The page: what a visitor touches, and what is drawn.

const network = readNetwork();
const { settings, tensors, examples, n } = network;
const { recall: how } = settings;
const life = new Life(network);
const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const few = (value) => Number(value.toPrecision(2)).toString();
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const unit = how.binary ? "bit" : "pixel";
const ROWS = Math.ceil(how.numbers / how.width);
// Memories that are asked for after every change.
const MOST_MEMORIES = 8;
const WAIT_STEPS = 10;

// The picture at hand: what is drawn, from 0 (black) to 1 (white), and the stimulus that it gives.
let grey = new Float64Array(how.numbers);
let stimulus = examples[0];
let example = 0;
let answer = null;
let half = "bottom";
let brush = 1;
let cursor = null;
let pen = null;
let memories = [];
let shown = 0;

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

function paintDrawing() {
  paintGrey($("drawing"), stimulus, how.width);
  if (!cursor || document.activeElement !== $("drawing")) return;
  const context = $("drawing").getContext("2d");
  context.fillStyle = colourOf("high");
  context.fillRect(cursor.x, cursor.y, 1, 1);
}

function paintAnswer() {
  const hidden = (k) => hides(half, k, how);
  if (answer) {
    paintGrey($("answer"), stimulus.map((value, k) => (hidden(k) ? answer[k] : value)), how.width);
  } else {
    paintGrey($("answer"), stimulus, how.width, hidden);
  }
  const blank = new Float32Array(how.numbers);
  const guess = how.binary ? 0.5 : errorOf(blank, stimulus, half, how);
  $("error").textContent = answer ? percent(errorOf(answer, stimulus, half, how)) : "\u2013";
  $("guess").textContent = `${how.binary ? "Guessing" : "All grey"} would be wrong by ${percent(guess)}.`;
  const what = answer ? `The picture with its ${half} half recalled` : `The picture with its ${half} half hidden`;
  $("answer").setAttribute("aria-label", what);
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

function paintInside() {
  for (const [name, matrix] of Object.entries(matrices)) {
    const most = largest(matrix);
    paintSigned($(name), matrix, n, most || 1);
    $(`${name}-scale`).textContent = few(most);
    $(name).setAttribute("aria-label", `${name} of all connections, at most ${few(most)}`);
  }
  paintOne();
}

// The connections to one neuron, as a picture of where they come from.
function paintOne() {
  const j = Number($("chosen").value);
  const [row, column] = [Math.floor(j / how.width), j % how.width];
  $("chosen-name").textContent = `row ${row + 1}, column ${column + 1}`;
  const all = { w: matrices.w, alpha: matrices.alpha, h: life.memory.h };
  for (const [name, matrix] of Object.entries(all)) {
    const values = Float32Array.from({ length: how.numbers }, (_, i) => matrix[i * n + j]);
    const canvas = $(`one-${name}`);
    paintSigned(canvas, values, how.width, largest(values) || 1);
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(document.body).color;
    context.fillRect(column, row, 1, 1);
    canvas.setAttribute("aria-label", `${name} from every ${unit} to row ${row + 1}, column ${column + 1}`);
  }
}

function paintAll() {
  paintDrawing();
  paintAnswer();
  paintTrace();
  paintInside();
  for (const [k, button] of [...$("examples").children].entries()) {
    paintGrey(button.firstChild, examples[k], how.width);
    button.setAttribute("aria-pressed", String(k === example));
  }
  paintMemories();
}

// Another picture at hand.
function take(values, from) {
  stimulus = values;
  grey = greyOfStimulus(values);
  example = from;
  answer = null;
  for (const [k, button] of [...$("examples").children].entries()) {
    button.setAttribute("aria-pressed", String(k === from));
  }
  paintDrawing();
  paintAnswer();
}

// Paints pixels, and so changes the picture at hand.
function draw(pixels) {
  const inside = pixels.filter(({ x, y }) =>
    x >= 0 && y >= 0 && x < how.width && y * how.width + x < how.numbers);
  if (inside.length === 0) return;
  const drawn = grey;
  for (const { x, y } of inside) drawn[y * how.width + x] = brush;
  take(stimulusOfGrey(drawn, how), null);
  grey = drawn;
}

// The pixels of a straight line.
function line(from, to) {
  const count = Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y), 1);
  const between = (a, b, k) => Math.round(a + ((b - a) * k) / count);
  return Array.from({ length: count + 1 }, (_, k) => ({ x: between(from.x, to.x, k), y: between(from.y, to.y, k) }));
}

// After a step of a show: H as it changes, for those who like things to move.
async function drawStep() {
  if (reducedMotion.matches) return;
  paintTrace();
  await frame();
}

async function show() {
  if (largest(stimulus) < 1e-3) {
    say("The picture is of one grey: there is nothing to remember in it. Draw something, or take an example.", true);
    return;
  }
  const values = stimulus;
  const total = how.cycles * (how.shown + how.blank);
  say("The network looks at it\u2026");
  // long shows draw fewer pictures
  await life.show(values, drawStep, Math.ceil(total / 120));
  paintTrace();
  const known = memories.find((memory) => memory.values.every((value, k) => value === values[k]));
  if (!known) {
    shown += 1;
    memories.push({ number: shown, values, history: [], answer: null });
    memories = memories.slice(-MOST_MEMORIES);
  }
  await askAll();
  paintOne();
  say(`Shown ${how.cycles === 1 ? "once" : `${how.cycles} times`}, ${total} steps. The picture is in the trace now: `
    + `press Recall, and the ${half} half comes back from the other one.`);
}

// Asks for every memory, with the half at hand hidden.
async function askAll() {
  for (const memory of memories) {
    memory.answer = await life.completeWithout(memory.values, half);
    const error = errorOf(memory.answer, memory.values, half, how);
    memory.history = memory.history.filter(({ steps }) => steps !== life.steps);
    memory.history.push({ steps: life.steps, error });
  }
  paintMemories();
  describeDevice();
}

function paintMemories() {
  // none is painted before it was asked for
  if (memories.some(({ history }) => history.length === 0)) return;
  const cards = memories.map((memory) => {
    const card = document.createElement("li");
    const pair = document.createElement("div");
    pair.className = "pair";
    const [was, now] = [0, 1].map(() => document.createElement("canvas"));
    pair.append(was, now);
    paintGrey(was, memory.values, how.width);
    paintGrey(now, memory.values.map((value, k) => (hides(half, k, how) ? memory.answer[k] : value)), how.width);
    for (const [canvas, what] of [[was, "as shown"], [now, "as recalled now"]]) {
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Memory ${memory.number} ${what}`);
    }
    const badge = document.createElement("span");
    badge.className = "badge";
    badge.textContent = memory.number;
    [badge.style.borderColor] = lineOf(memory.number);
    const { error } = memory.history[memory.history.length - 1];
    card.append(pair, badge, `error ${percent(error)}`);
    return card;
  });
  $("memories").replaceChildren(...cards);
  $("fading").hidden = memories.length === 0;
  if (memories.length > 0) {
    drawFading($("chart"), memories, life.steps);
    writeNumbers();
  }
}

function writeNumbers() {
  const moments = [...new Set(memories.flatMap(({ history }) => history.map(({ steps }) => steps)))];
  moments.sort((a, b) => a - b);
  const row = (cells, kind) => {
    const line = document.createElement("tr");
    line.append(...cells.map((text, k) => {
      const cell = document.createElement(k === 0 ? "th" : kind);
      cell.scope = k === 0 && kind === "td" ? "row" : "col";
      if (cell.tagName === "TD") cell.removeAttribute("scope");
      cell.textContent = text;
      return cell;
    }));
    return line;
  };
  const head = row(["steps lived", ...memories.map(({ number }) => `memory ${number}`)], "th");
  const lines = moments.map((steps) => row([steps, ...memories.map(({ history }) => {
    const point = history.find((one) => one.steps === steps);
    return point ? percent(point.error) : "";
  })], "td"));
  $("numbers").replaceChildren(head, ...lines);
}

// Asks for every memory under other conditions: errors before do not compare with those to come.
async function askAnew() {
  for (const memory of memories) memory.history = [];
  await askAll();
}

async function recall() {
  const values = stimulus;
  const found = await life.completeWithout(values, half);
  // another picture was taken meanwhile
  if (stimulus !== values) return;
  answer = found;
  paintAnswer();
  describeDevice();
  const error = percent(errorOf(answer, values, half, how));
  const blank = life.steps === 0;
  const hint = blank ? " Nothing was shown yet: this is what the network makes of the half alone."
    : life.plastic ? "" : " Plasticity is off: the trace is there, and no connection uses it.";
  say(`Recalled from the other half in ${how.test} steps: ${error} error on what was hidden.${hint}`);
}

async function wait() {
  const blank = new Float32Array(how.numbers);
  await life.live(blank, WAIT_STEPS, drawStep, 1);
  paintTrace();
  await askAll();
  paintOne();
  say(`${WAIT_STEPS} steps with nothing to see: the network\u2019s own activity was written over the trace. Compare the errors below.`);
}

function forget() {
  life.forget();
  memories = [];
  shown = 0;
  answer = null;
  paintTrace();
  paintOne();
  paintAnswer();
  paintMemories();
  say("Forgotten: the trace is zero again. What was learned in training, w and \u03b1, stays.");
}

async function setPlastic(plastic) {
  life.setPlastic(plastic);
  await askAnew();
  if (answer) await recall();
  say(plastic ? "Plasticity is on." : "Plasticity is off: H is still written, and no connection uses it.");
}

async function takeFile(file) {
  if (!file) return;
  try {
    take(stimulusOfGrey(await greyOfFile(file, how), how), null);
    say(`${file.name}, as the network sees it: ${how.width} by ${ROWS} ${unit}s.`);
  } catch (error) {
    say(error.message, true);
  }
}

// A choice of one among several.
function segments(place, name, choices, chosen, act) {
  for (const [value, text, colour] of choices) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("change", () => act(value));
    label.append(input);
    if (colour) {
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = colour;
      label.append(swatch);
    }
    label.append(text);
    place.append(label);
  }
}

// Which pixel of the drawing a pointer is on; the picture may be higher or wider than its square.
function pixelAt(event) {
  const box = $("drawing").getBoundingClientRect();
  const size = Math.min(box.width / how.width, box.height / ROWS);
  const left = box.left + (box.width - size * how.width) / 2;
  const top = box.top + (box.height - size * ROWS) / 2;
  return {
    x: Math.floor((event.clientX - left) / size),
    y: Math.floor((event.clientY - top) / size),
  };
}

function listen() {
  const drawing = $("drawing");
  drawing.addEventListener("pointerdown", (event) => {
    drawing.setPointerCapture(event.pointerId);
    cursor = null;
    pen = pixelAt(event);
    draw([pen]);
  });
  drawing.addEventListener("pointermove", (event) => {
    if (!drawing.hasPointerCapture(event.pointerId)) return;
    const to = pixelAt(event);
    draw(line(pen, to));
    pen = to;
  });
  drawing.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    cursor ??= { x: 0, y: 0 };
    if (move) {
      cursor.x = Math.min(Math.max(cursor.x + move[0], 0), how.width - 1);
      cursor.y = Math.min(Math.max(cursor.y + move[1], 0), ROWS - 1);
    } else {
      draw([cursor]);
    }
    paintDrawing();
  });
  drawing.addEventListener("focus", () => {
    if (drawing.matches(":focus-visible")) cursor ??= { x: 0, y: 0 };
    paintDrawing();
  });
  drawing.addEventListener("blur", paintDrawing);

  $("clear").addEventListener("click", () => {
    const blank = new Float64Array(how.numbers);
    take(stimulusOfGrey(blank, how), null);
    grey = blank;
    say("Draw something; then show it.");
  });
  $("open").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    then(() => takeFile(file));
    $("file").value = "";
  });
  // a picture dropped beside its place is meant too
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    const [file] = event.dataTransfer.files;
    then(() => takeFile(file));
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    then(() => takeFile(file));
  });

  $("show").addEventListener("click", () => then(show));
  $("recall").addEventListener("click", () => then(recall));
  $("wait").addEventListener("click", () => then(wait));
  $("forget").addEventListener("click", () => then(forget));
  $("plastic").addEventListener("change", (event) => {
    const { checked } = event.target;
    then(() => setPlastic(checked));
  });
  $("chosen").addEventListener("input", paintOne);
  prefersDark.addEventListener("change", paintAll);
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
  if (how.clamped) activity[1] += "; where the picture is seen, the picture itself";
  const bound = settings.clip ? `, kept within \u00b1${settings.clip}` : "";
  const all = [
    [`${x}${op("=")}${sub("y", i)}${before}`, "what a neuron sends is its activity a step ago"],
    [`${sub("z", j)}${at(t)}${op("=")}${sum}${x}${op("(")}${w}${op("+")}${alpha}${h}${op(")")}${op("+")}${u}${bias}`,
      "what reaches neuron j: fixed and plastic connections, and the picture u"],
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

function start() {
  $("size").textContent = `${n} neurons and ${(n * n).toLocaleString("en")} connections`;
  document.querySelectorAll(".unit").forEach((place) => (place.textContent = unit));
  document.title = $("size").closest("header").querySelector("h1").textContent;
  $("drawing").setAttribute("aria-label",
    `The picture, ${how.width} by ${ROWS} ${unit}s. Arrow keys move, space draws with the chosen brush.`);
  $("drawing").setAttribute("aria-describedby", "drawing-help");
  $("chosen").max = how.numbers - 1;
  $("chosen").value = Math.floor(how.numbers / 2 + how.width / 2);
  const brushes = [[1, "White", "#fff"], [0.5, "Grey", "#808080"], [0, "Black", "#000"]];
  segments($("brushes"), "brush", how.binary ? [brushes[0], brushes[2]] : brushes, brush, (value) => (brush = value));
  const halves = ["top", "bottom", "left", "right"].map((name) => [name, name]);
  segments($("halves"), "half", halves, half, (value) => then(async () => {
    half = value;
    answer = null;
    paintAnswer();
    await askAnew();
  }));
  examples.forEach((values, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(document.createElement("canvas"));
    button.setAttribute("aria-label", `Example ${k + 1}`);
    button.addEventListener("click", () => take(values, k));
    $("examples").append(button);
  });
  $("origin").textContent = `Network ${settings.network} of a run of ${settings.trained}: task ${settings.task}, rule `
    + `${settings.rule}, ${settings.activation}. Made by hebbian export, version ${settings.version}.`;
  equations();
  listen();
  take(examples[0], 0);
  paintAll();
  describeDevice();
  say("Press \u201cShow it to the network\u201d, then \u201cRecall\u201d.");
}

// Between two things that a visitor does, the life moves to WebGPU.
async function startDevice() {
  const gpu = await life.findGpu();
  await then(() => {
    if (gpu) life.moveTo(gpu);
    describeDevice();
  });
}

// For the console: `await hebbian.device`, then `hebbian.life.show(values)`, `hebbian.life.complete(cue)`.
const ready = then(start);
const device = ready.then(startDevice);
globalThis.hebbian = { network, life, ready, device, settled: () => last, get answer() { return answer; } };
