// The resident plan: the tile is the whole network, and neuron k belongs to invocation k.

//!constant TRACES
const PRE = ROWS;
const POST = WIDTH;
