// The page of a network that says sequences again: what a visitor touches, and what is drawn.

const { sequence: how } = settings;
const COUNT = how.length * how.bits;

// The sequence at hand, numbers of -1 and 1, and what the network said last.
let sequence = network.examples[0].slice();
let said = null;
const tries = [];

const signOf = (value) => (value > 0 ? "+" : "\u2212");
const isWrong = (value, k) => !(value * sequence[k] > 0);

function paintSequence() {
  [...$("sequence").children].forEach((button, k) => {
    button.textContent = signOf(sequence[k]);
    button.setAttribute("aria-pressed", String(sequence[k] > 0));
  });
}

// What was said so far.
function paintSaid(values) {
  [...$("said").children].forEach((cell, k) => {
    const known = k < values.length;
    cell.textContent = known ? signOf(values[k]) : "";
    cell.className = known && isWrong(values[k], k) ? "wrong" : "";
    cell.classList.toggle("plus", known && values[k] > 0);
  });
}

function takeSequence(values) {
  sequence = values.slice();
  said = null;
  $("error").textContent = "\u2013";
  paintSequence();
  paintSaid([]);
}

async function ask() {
  const delay = Number($("delay").value);
  const asked = sequence;
  paintSaid([]);
  say("The network looks at it, and waits\u2026");
  const found = await life.sayAgain(asked, delay, async (_, t, so) => {
    // another sequence was taken meanwhile
    if (so && asked === sequence) paintSaid(so);
    await drawStep();
  });
  paintTrace();
  describeDevice();
  if (asked !== sequence) return;
  said = found;
  paintSaid(said);
  const wrong = said.filter(isWrong).length;
  const error = percent(wrong / COUNT);
  $("error").textContent = error;
  tries.push([tries.length + 1, delay, life.plastic ? "on" : "off", error]);
  $("tries").replaceChildren(rowOf(["try", "steps waited", "plasticity", "wrong signs"], "th"), ...tries.map((one) => rowOf(one)));
  const steps = Array.from({ length: how.length }, (_, t) => [...said.slice(t * how.bits, (t + 1) * how.bits)]);
  $("numbers").replaceChildren(
    rowOf(["step", ...steps[0].map((_, k) => `number ${k + 1}`)], "th"),
    ...steps.map((values, t) => rowOf([t + 1, ...values.map((value) => value.toFixed(3))])));
  say(`${COUNT - wrong} of ${COUNT} signs were said right after ${delay} steps of waiting`
    + `${life.plastic ? "" : ", without plasticity"}.`);
}

function start() {
  document.querySelectorAll(".bits").forEach((place) => (place.textContent = how.bits));
  document.querySelectorAll(".length").forEach((place) => (place.textContent = how.length));
  $("guess").textContent = percent(0.5);
  for (const place of [$("sequence"), $("said")]) place.style.gridTemplateRows = `repeat(${how.bits}, auto)`;
  for (let k = 0; k < COUNT; k += 1) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Step ${Math.floor(k / how.bits) + 1}, sign ${(k % how.bits) + 1} is plus`);
    button.addEventListener("click", () => {
      const turned = sequence.slice();
      turned[k] = -turned[k];
      takeSequence(turned);
    });
    $("sequence").append(button);
    $("said").append(document.createElement("span"));
  }
  network.examples.forEach((values, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = k + 1;
    button.setAttribute("aria-label", `Example ${k + 1}`);
    button.addEventListener("click", () => takeSequence(values));
    $("examples").append(button);
  });
  const nameDelay = () => ($("delay-name").textContent = $("delay").value);
  $("delay").max = Math.max(2 * how.delay, 10);
  $("delay").value = how.delay;
  $("delay").addEventListener("input", nameDelay);
  nameDelay();
  $("ask").addEventListener("click", () => then(ask));
  $("plastic").addEventListener("change", (event) => {
    const { checked } = event.target;
    then(() => life.setPlastic(checked));
  });
  const paintColours = () => {
    paintTrace();
    paintMatrices();
  };
  prefersDark.addEventListener("change", paintColours);
  paintColours();
  takeSequence(sequence);
  say("Press \u201cShow, wait, ask\u201d.");
}

Object.defineProperty(begin(start), "said", { get: () => said });
