// The network that this page holds, and its step in JavaScript: the equations as loops over i, the neuron
// before a connection, and j, the one behind it. It runs where the browser has no WebGPU, and checks the
// shaders where it has.

// Numbers of 32 bits from base64.
function numbersOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// What `hebbian export` wrote: settings, parameters, examples, the shaders' plan, and layers around the core,
// whose parameters the shaders do not see.
function readNetwork() {
  const settings = JSON.parse(document.getElementById("network").textContent);
  const parameters = numbersOf(settings.parameters);
  const tensors = {};
  for (const { name, shape, at } of settings.tensors) {
    const size = shape.reduce((product, n) => product * n, 1);
    tensors[name] = { values: parameters.subarray(at, at + size), shape, at };
  }
  const examples = settings.examples.map(numbersOf);
  const layers = Object.fromEntries(Object.entries(settings.layers).map(([name, text]) => [name, numbersOf(text)]));
  return { settings, parameters, tensors, examples, layers, n: settings.neurons };
}

// The index of alpha for connection (i, j) is i * row + j * column: it may be shared.
function strides({ shape }) {
  const [rows, columns] = shape;
  return { row: rows > 1 ? columns : 0, column: columns > 1 ? 1 : 0 };
}

// A memory before anything was shown: activity y, trace H, and what some rules and leaks keep beside them.
function blankMemory(network) {
  const { n, settings } = network;
  return {
    y: new Float32Array(n),
    h: new Float32Array(n * n),
    e: settings.rule === "retroactive" ? new Float32Array(n * n) : null,
    v: settings.leak === "membrane" ? new Float32Array(n) : null,
  };
}

function copyOfMemory({ y, h, e, v }) {
  return { y: y.slice(), h: h.slice(), e: e && e.slice(), v: v && v.slice() };
}

// erf by its series, or for large x by the continued fraction of erfc.
function erf(x) {
  const a = Math.abs(x);
  let value;
  if (a < 3) {
    let term = a;
    value = a;
    for (let k = 1; k < 60; k += 1) {
      term *= (-a * a) / k;
      value += term / (2 * k + 1);
    }
    value *= 2 / Math.sqrt(Math.PI);
  } else {
    let fraction = a;
    for (let k = 40; k > 0; k -= 1) fraction = a + k / 2 / fraction;
    value = 1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / fraction;
  }
  return x < 0 ? -value : value;
}

const ACTIVATIONS = {
  tanh: Math.tanh,
  sigmoid: (z) => 1 / (1 + Math.exp(-z)),
  relu: (z) => Math.max(z, 0),
  linear: (z) => z,
  softplus: (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))),
  gelu: (z) => (z * (1 + erf(z / Math.SQRT2))) / 2,
};

function activate(name, z) {
  if (name !== "softmax") return z.map(ACTIVATIONS[name]);
  const top = z.reduce((most, value) => Math.max(most, value), -Infinity);
  const exponentials = z.map((value) => Math.exp(value - top));
  const total = exponentials.reduce((sum, value) => sum + value, 0);
  return exponentials.map((value) => value / total);
}

// Runs the network in JavaScript.
class ScriptRunner {
  constructor(network) {
    this.network = network;
    this.memory = blankMemory(network);
    this.plastic = true;
  }

  setPlastic(plastic) {
    this.plastic = plastic;
  }

  async read() {
    return copyOfMemory(this.memory);
  }

  write(memory) {
    this.memory = copyOfMemory(memory);
  }

  close() {}

  // One step with the external drive u; where clamp is not 0 (if there is a clamp), y is set to u.
  step(u, clamp) {
    const { n, tensors, settings } = this.network;
    const { y: x, h, v } = this.memory;
    const w = tensors.w.values;
    const alpha = tensors.alpha.values;
    const { row, column } = strides(tensors.alpha);
    const shared = (name, j) => tensors[name].values[tensors[name].shape[0] > 1 ? j : 0];

    // z_j = sum over i of x_i (w_ij + alpha_ij H_ij) + u_j
    let z = Float64Array.from(u);
    for (let i = 0; i < n; i += 1) {
      const from = x[i];
      for (let j = 0; j < n; j += 1) {
        const plastic = this.plastic ? alpha[i * row + j * column] * h[i * n + j] : 0;
        z[j] += from * (w[i * n + j] + plastic);
      }
    }
    if (tensors.bias) z = z.map((value, j) => value + shared("bias", j));
    if (v) {
      z = z.map((value, j) => (1 - shared("leak", j)) * v[j] + shared("leak", j) * value);
      this.memory.v = Float32Array.from(z);
    }
    let y = activate(settings.activation, z);
    if (settings.leak === "rate") {
      y = y.map((value, j) => (1 - shared("leak", j)) * x[j] + shared("leak", j) * value);
    }
    if (clamp) y = y.map((value, j) => (clamp[j] === 0 ? value : u[j]));
    y = Float32Array.from(y);
    this.learn(x, y, shared);
    this.memory.y = y;
  }

  // H' = clip(d_j H + c_j x_i), or with a second trace E: H' = clip(H + m_j E), E' = d_j E + c_j x_i.
  learn(x, y, shared) {
    const { n, tensors, settings } = this.network;
    const { h, e } = this.memory;
    const m = modulator(this.network, y);
    const clip = settings.clip ?? Infinity;
    for (let j = 0; j < n; j += 1) {
      const eta = tensors.eta ? shared("eta", j) : 0;
      let [decay, gain] = [1, 0];
      if (settings.rule === "decay" || settings.rule === "retroactive") {
        [decay, gain] = [1 - eta, eta * y[j]];
      } else if (settings.rule === "oja") {
        [decay, gain] = [1 - eta * y[j] * y[j], eta * y[j]];
      } else if (settings.rule === "modulated") {
        [decay, gain] = [1, m[j] * y[j]];
      }
      for (let i = 0; i < n; i += 1) {
        const k = i * n + j;
        const next = e ? h[k] + m[j] * e[k] : decay * h[k] + gain * x[i];
        h[k] = Math.min(Math.max(next, -clip), clip);
        if (e) e[k] = decay * e[k] + gain * x[i];
      }
    }
  }
}

// m_j, which the network reads out of its own activity; none for rules that use none.
function modulator({ tensors }, y) {
  if (!tensors["mod.w"]) return null;
  const sum = tensors["mod.w"].values.reduce((total, w, k) => total + w * y[k], 0);
  const signal = Math.tanh(sum + tensors["mod.b"].values[0]);
  const offsets = tensors["fanout.b"].values;
  return Array.from(tensors["fanout.w"].values, (w, j) => w * signal + offsets[j]);
}
