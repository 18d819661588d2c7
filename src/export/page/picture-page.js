// The page of a network that is shown pictures: what a visitor touches, and what is drawn.

const { recall: how } = settings;
const { examples } = network;
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
  paintMatrices();
  paintOne();
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
  const head = rowOf(["steps lived", ...memories.map(({ number }) => `memory ${number}`)], "th");
  const lines = moments.map((steps) => rowOf([steps, ...memories.map(({ history }) => {
    const point = history.find((one) => one.steps === steps);
    return point ? percent(point.error) : "";
  })]));
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

function start() {
  document.querySelectorAll(".unit").forEach((place) => (place.textContent = unit));
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
  listen();
  take(examples[0], 0);
  paintAll();
  say("Press \u201cShow it to the network\u201d, then \u201cRecall\u201d.");
}

Object.defineProperty(begin(start), "answer", { get: () => answer });
