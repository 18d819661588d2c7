// What a tile needs of a window of at most WINDOW steps: x of its rows at each step, and at the
// step after it; d, c, m and delta of its columns at each step.

var<workgroup> sh_x: array<array<array<vec4<f32>, LANES>, ROW_GROUPS>, WINDOW + 1u>;
var<workgroup> sh_k: array<array<array<vec4<f32>, PLACES>, COLUMNS>, WINDOW>;

// Puts what was fetched into workgroup memory. Every invocation calls it, between barriers.
fn put_fetched(part: Fetched, base: u32, first: u32, n_steps: u32, local: u32) {
    if (local / QUADS < n_steps) {
        let spot = spot_of_quad(local % QUADS);
        sh_x[local / QUADS][spot.x][spot.y] = x_fetched(part, base, first, local);
    }
    //!unroll f FETCHES
    if ((local + 256u * $f) / WIDTH < min(n_steps, WINDOW)) {
        let i = local + 256u * $f;
        let spot = spot_of_column(i % WIDTH);
        sh_k[i / WIDTH][spot.x][spot.y] = part.k[$f];
    }
    //!end
}

fn coefficients_of(k: vec4<f32>) -> Coefficients {
    return Coefficients(k.x, k.y, k.z);
}
