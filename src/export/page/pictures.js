// Numbers as pictures on canvases.

// A colour of the style, as it is now: light or dark.
function colourOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function channelsOf(name) {
  const hex = colourOf(name);
  return [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

// Paints `count` pixels in rows of `width`; `colour` of one is a word of alpha, blue, green and red.
function paint(canvas, width, count, colour) {
  const height = Math.ceil(count / width);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const image = new ImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  for (let k = 0; k < count; k += 1) words[k] = colour(k);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function word([red, green, blue]) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

// Numbers from -1, black, to 1, white; what `hidden` names is hatched.
function paintGrey(canvas, values, width, hidden = () => false) {
  const hatch = ["ground", "line"].map((name) => word(channelsOf(name)));
  paint(canvas, width, values.length, (k) => {
    if (hidden(k)) return hatch[(Math.floor(k / width) + (k % width)) % 2];
    const grey = Math.round(127.5 * (Math.min(Math.max(values[k], -1), 1) + 1));
    return word([grey, grey, grey]);
  });
}

// Colours from -1 to 1; small numbers are to be seen too.
const SHADES = 255;
function shadesOf([low, zero, high]) {
  return Uint32Array.from({ length: 2 * SHADES + 1 }, (_, k) => {
    const share = k / SHADES - 1;
    const end = share < 0 ? low : high;
    const strength = Math.sqrt(Math.abs(share));
    return word(zero.map((from, channel) => Math.round(from + strength * (end[channel] - from))));
  });
}
let signed = null;
prefersDark.addEventListener("change", () => (signed = null));

// Numbers from -most to most as colours.
function paintSigned(canvas, values, width, most) {
  signed ??= shadesOf(["low", "panel", "high"].map(channelsOf));
  const scale = SHADES / most;
  paint(canvas, width, values.length, (k) =>
    signed[Math.min(Math.max(Math.round(values[k] * scale), -SHADES), SHADES) + SHADES]);
}

function largest(values) {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

// Colours and dashes of lines, told apart by colour-blind eyes too.
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
const SERIES = ["low", "high", "s3", "s4", "s5", "s6", "s7"];
function lineOf(number) {
  const colour = `var(--${SERIES[(number - 1) % SERIES.length]})`;
  return [colour, DASHES[(number - 1) % DASHES.length]];
}

function svg(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  element.textContent = text;
  return element;
}

// Error against steps lived, a line a memory, into an SVG element.
function drawFading(place, memories, steps) {
  const [height, left, bottom, top, right] = [220, 52, 40, 12, 34];
  const width = Math.max(300, place.clientWidth);
  place.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const most = Math.max(0.1, ...memories.flatMap(({ history }) => history.map(({ error }) => error)));
  const x = (step) => left + ((width - left - right) * step) / Math.max(steps, 1);
  const y = (error) => height - bottom - ((height - bottom - top) * error) / most;
  place.replaceChildren();
  for (const share of [0, 0.5, 1]) {
    const at = y(share * most);
    place.append(svg("line", { x1: left, x2: width - right, y1: at, y2: at, class: "grid" }));
    const label = `${Math.round(100 * share * most)} %`;
    place.append(svg("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, label));
  }
  for (const share of [0, 0.5, 1]) {
    const label = String(Math.round(share * steps));
    place.append(svg("text", { x: x(share * steps), y: height - bottom + 18, "text-anchor": "middle" }, label));
  }
  const middle = (left + width - right) / 2;
  place.append(svg("text", { x: middle, y: height - 4, "text-anchor": "middle" }, "steps lived"));
  let above = -Infinity;
  const ends = [];
  memories.forEach(({ number, history }) => {
    if (history.length === 0) return;
    const [stroke, dashes] = lineOf(number);
    const points = history.map(({ steps: at, error }) => `${x(at)},${y(error)}`);
    place.append(svg("polyline", { points: points.join(" "), stroke, "stroke-dasharray": dashes, class: "line" }));
    for (const point of history) {
      place.append(svg("circle", { cx: x(point.steps), cy: y(point.error), r: 3.5, fill: stroke }));
    }
    const last = history[history.length - 1];
    ends.push({ number, at: y(last.error), x: x(last.steps) });
  });
  // labels at the lines' ends, none over another
  for (const { number, at, x: end } of ends.sort((a, b) => a.at - b.at)) {
    above = Math.max(at + 4, above + 14);
    place.append(svg("text", { x: end + 8, y: above, class: "end" }, String(number)));
  }
}
