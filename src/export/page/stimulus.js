// Stimuli: numbers from -1 to 1, 0 where nothing is shown. A picture becomes one as `hebbian recall` reads
// it: averaged to the network's size, minus its mean, divided by its largest deviation.

// Files of more bytes are refused before they are taken apart, pictures of more pixels made smaller.
const MOST_BYTES = 32 * 2 ** 20;
const MOST_PIXELS = 2 ** 24;

function stimulusOfGrey(grey, { binary }) {
  if (binary) return Float32Array.from(grey, (value) => (value >= 0.5 ? 1 : -1));
  const mean = grey.reduce((sum, value) => sum + value, 0) / grey.length;
  const most = grey.reduce((most, value) => Math.max(most, Math.abs(value - mean)), 0);
  return Float32Array.from(grey, (value) => (value - mean) / (1e-8 + most));
}

function greyOfStimulus(values) {
  return Float64Array.from(values, (value) => (value + 1) / 2);
}

// Means over the pixels that fall on each number; rgba is what a canvas gives.
function averaged(rgba, columns, rows, { numbers, width }) {
  const height = Math.ceil(numbers / width);
  const range = (at, of, n) => [Math.floor((at * n) / of), Math.floor(((at + 1) * n) / of)];
  return Float64Array.from({ length: numbers }, (_, k) => {
    const [top, bottom] = range(Math.floor(k / width), height, rows);
    const [left, right] = range(k % width, width, columns);
    let sum = 0;
    for (let y = top; y < bottom; y += 1) {
      for (let x = left; x < right; x += 1) {
        const at = 4 * (y * columns + x);
        sum += (rgba[at] + rgba[at + 1] + rgba[at + 2]) / 3 / 255;
      }
    }
    return sum / ((bottom - top) * (right - left));
  });
}

// The grey numbers of a file; an Error says in a sentence why there are none.
async function greyOfFile(file, recall) {
  if (file.size > MOST_BYTES) {
    const size = Math.round(file.size / 2 ** 20);
    throw new Error(`${file.name} has ${size} MiB. A picture may have 32 MiB: choose a smaller one.`);
  }
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is no picture that this browser can read. PNG and JPEG work.`);
  }
  const height = Math.ceil(recall.numbers / recall.width);
  // the middle of the picture, as wide and high as the network's is
  const scale = Math.min(picture.width / recall.width, picture.height / height);
  const [across, down] = [recall.width * scale, height * scale];
  const shrink = Math.min(1, Math.sqrt(MOST_PIXELS / (across * down)));
  const columns = Math.max(recall.width, Math.round(across * shrink));
  const rows = Math.max(height, Math.round(down * shrink));
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, columns, rows);
  const [left, top] = [(picture.width - across) / 2, (picture.height - down) / 2];
  context.drawImage(picture, left, top, across, down, 0, 0, columns, rows);
  picture.close();
  return averaged(context.getImageData(0, 0, columns, rows).data, columns, rows, recall);
}

// Whether a half hides number k.
function hides(half, k, { numbers, width }) {
  switch (half) {
    case "top": return k < numbers / 2;
    case "bottom": return k >= numbers / 2;
    case "left": return k % width < Math.floor(width / 2);
    case "right": return k % width >= Math.ceil(width / 2);
    default: throw new Error(`no half ${half}`);
  }
}

// The error on the hidden numbers, as `hebbian recall` has it: the share of wrong signs, or the root mean
// square.
function errorOf(answer, values, half, recall) {
  let [sum, count] = [0, 0];
  values.forEach((value, k) => {
    if (!hides(half, k, recall)) return;
    count += 1;
    sum += recall.binary ? Number(answer[k] * value <= 0) : (answer[k] - value) ** 2;
  });
  return recall.binary ? sum / count : Math.sqrt(sum / count);
}
