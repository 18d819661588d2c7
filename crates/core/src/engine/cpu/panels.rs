//! Matrices as panels a few vectors wide, so that a kernel that goes down a panel keeps its
//! column sums in registers; large ones in bands of rows too, so that kernels down the columns
//! and along the rows both read memory in order.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::buffer::{Aligned, Buffers};
use crate::engine::cpu::simd::{Instructions, Lanes, Vector, lanes};

/// Vectors side by side in a panel, of which the last one may have fewer: so many that a
/// kernel's sums stay in registers.
pub(crate) const fn width<A: Simd>() -> usize {
    match A::REGISTER_COUNT {
        _ if size_of::<A::f32s>() == size_of::<f32>() => 1,
        ..32 => 2,
        _ => 4,
    }
}

/// The same for the instruction set in use.
pub(crate) fn width_in_use<S: Lanes>() -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        #[inline(always)]
        fn with_simd<A: Simd>(self, _: A) -> usize {
            width::<A>()
        }
    }
    Instructions::<S>::widest().run(Width)
}

/// Scalars of consecutive rows that lie together in a table. A multiple of every
/// vector's lanes, so rows padded to it hold whole vectors.
pub(crate) const BLOCK: usize = 16;

/// How `[n_rows, n_columns]` is cut: into bands of rows, and these into tiles, a band's part of
/// a panel each. A tile is row-major; tiles of a band follow each other, and bands; the last
/// panel is padded with zero columns to whole vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panels {
    pub(crate) n_rows: usize,
    pub(crate) n_columns: usize,
    pub(crate) lanes: usize,
    /// Vectors side by side.
    width: usize,
    /// Rows of a band, of which the last one may have fewer: all, or [`ROWS`].
    band: usize,
}

/// One panel, in vectors.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    /// Vectors of a row to its left.
    pub(crate) first: usize,
    /// Its width.
    pub(crate) width: usize,
}

/// Some rows of a band.
pub(crate) struct Band {
    rows: Range<usize>,
    /// The rows of all of it.
    band: Range<usize>,
    /// Vectors of the bands before it.
    before: usize,
}

impl Band {
    /// What a panel has of these rows.
    pub(crate) fn tile(&self, panel: Panel) -> Tile {
        let Band { rows, band, before } = self;
        let place = rows.start - band.start;
        let at = before + band.len() * panel.first + place * panel.width;
        Tile { rows: rows.clone(), panel, at }
    }
}

/// Some rows of a band, in one panel.
pub(crate) struct Tile {
    pub(crate) rows: Range<usize>,
    pub(crate) panel: Panel,
    /// Where its first row lies, in vectors.
    pub(crate) at: usize,
}

impl Tile {
    /// Where it lies, in vectors.
    pub(crate) fn vectors(&self) -> Range<usize> {
        self.at..self.at + self.rows.len() * self.panel.width
    }

    /// Its rows, block by block: the block's number, the first of the tile's rows in it, and how
    /// many these are: at most [`BLOCK`], which the compiler sees.
    #[inline(always)]
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let (mut block, mut row, n_rows) = (self.rows.start / BLOCK, 0, self.rows.len());
        std::iter::from_fn(move || {
            let now = (block, row, (n_rows - row).min(BLOCK));
            (block, row) = (block + 1, row + now.2);
            (now.2 > 0).then_some(now)
        })
    }
}

/// A row-major matrix, or one that repeats rows or columns (stride 0).
#[derive(Clone, Copy)]
pub(crate) struct Strided<'a, S> {
    pub(crate) values: &'a [S],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl Panels {
    pub(crate) fn new<S: Lanes>(n_rows: usize, n_columns: usize) -> Self {
        let (lanes, width) = (lanes::<S>(), width_in_use::<S>());
        let whole = Panels { n_rows, n_columns, lanes, width, band: n_rows };
        if whole.len() * size_of::<S>() > LARGE { Panels { band: ROWS, ..whole } } else { whole }
    }

    /// The same of single numbers in place of vectors.
    pub(crate) fn of_numbers(self) -> Self {
        Panels { lanes: 1, ..self }
    }

    /// Vectors of one row.
    pub(crate) fn vectors(&self) -> usize {
        self.n_columns.div_ceil(self.lanes)
    }

    /// Vectors of the largest tile of at most [`ROWS`] rows.
    pub(crate) fn most_in_tile(&self) -> usize {
        self.n_rows.min(ROWS) * self.vectors().min(self.width)
    }

    /// Columns with the padding.
    pub(crate) fn padded(&self) -> usize {
        self.vectors() * self.lanes
    }

    /// Elements of all panels.
    pub(crate) fn len(&self) -> usize {
        self.n_rows * self.padded()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = Panel> + Clone + use<> {
        let (vectors, width) = (self.vectors(), self.width);
        (0..vectors)
            .step_by(width)
            .map(move |first| Panel { first, width: width.min(vectors - first) })
    }

    /// Some rows, cut at the ends of the bands.
    pub(crate) fn bands(&self, rows: Range<usize>) -> impl Iterator<Item = Band> + use<> {
        let Panels { n_rows, band, .. } = *self;
        let (mut row, vectors) = (rows.start, self.vectors());
        std::iter::from_fn(move || {
            let first = row / band * band;
            let band = first..n_rows.min(first + band);
            let rows = row..rows.end.min(band.end);
            row = band.end;
            (!rows.is_empty()).then_some(Band { before: first * vectors, band, rows })
        })
    }

    /// All tiles of some rows, in the order of memory.
    pub(crate) fn tiles(&self, rows: Range<usize>) -> impl Iterator<Item = Tile> + use<> {
        let panels = self.iter();
        self.bands(rows).flat_map(move |band| panels.clone().map(move |panel| band.tile(panel)))
    }

    /// A tile's columns without the padding.
    fn columns_of(&self, tile: &Tile) -> Range<usize> {
        let from = tile.panel.first * self.lanes;
        from..(from + tile.panel.width * self.lanes).min(self.n_columns)
    }

    /// Fills `out` from columns `first..` of a matrix.
    pub(crate) fn pack<S: Lanes>(&self, out: &mut [S], first: usize, matrix: Strided<'_, S>) {
        for tile in self.tiles(0..self.n_rows) {
            let columns = self.columns_of(&tile);
            let width = tile.panel.width * self.lanes;
            let rows = out[tile.at * self.lanes..].chunks_exact_mut(width);
            for (i, row) in tile.rows.zip(rows) {
                let at = i * matrix.row + (first + columns.start) * matrix.column;
                let row = &mut row[..columns.len()];
                if matrix.column == 1 {
                    row.copy_from_slice(&matrix.values[at..at + row.len()]);
                } else {
                    for (j, value) in row.iter_mut().enumerate() {
                        *value = matrix.values[at + j * matrix.column];
                    }
                }
            }
        }
    }

    /// Cuts `n` rows of vectors into parts, a panel's parts of all rows end to end: those of a
    /// panel start at `n * panel.first`. Where there are fewer rows, the others are zero. Returns
    /// the rest of `out`.
    #[inline(always)]
    pub(crate) fn cut<'a, V: Copy>(
        &self,
        (rows, stride, n_rows): (&[V], usize, usize),
        n: usize,
        zero: V,
        out: &'a mut [V],
    ) -> (&'a [V], &'a mut [V]) {
        let (out, rest) = out.split_at_mut(n * self.vectors());
        for panel in self.iter() {
            let parts = out[n * panel.first..].chunks_exact_mut(panel.width).take(n);
            for (r, part) in parts.enumerate() {
                if r < n_rows {
                    part.copy_from_slice(&rows[r * stride + panel.first..][..panel.width]);
                } else {
                    part.fill(zero);
                }
            }
        }
        (out, rest)
    }

    /// Adds rows from `first` on to those of a row-major matrix with rows of `stride`, or
    /// with `set` copies them there; as many as `out` holds.
    pub(crate) fn add_rows<S: Lanes>(
        &self,
        values: &[S],
        first: usize,
        set: bool,
        out: &mut [S],
        stride: usize,
    ) {
        let rows = first..self.n_rows.min(first + out.len().div_ceil(stride));
        for tile in self.tiles(rows) {
            let columns = self.columns_of(&tile);
            let width = tile.panel.width * self.lanes;
            let out = out[(tile.rows.start - first) * stride..].chunks_mut(stride);
            let rows = values[tile.at * self.lanes..].chunks_exact(width);
            for ((row, out), _) in rows.zip(out).zip(tile.rows) {
                let out = &mut out[columns.clone()];
                if set {
                    out.copy_from_slice(&row[..columns.len()]);
                } else {
                    for (out, &value) in out.iter_mut().zip(row) {
                        *out += value;
                    }
                }
            }
        }
    }

    /// Calls `take(row, columns, place)` for every row of every tile: its columns without the
    /// padding, and where the first one's element lies.
    pub(crate) fn rows(&self, mut take: impl FnMut(usize, Range<usize>, usize)) {
        for tile in self.tiles(0..self.n_rows) {
            let columns = self.columns_of(&tile);
            let places = (tile.at * self.lanes..).step_by(tile.panel.width * self.lanes);
            tile.rows.zip(places).for_each(|(row, place)| take(row, columns.clone(), place));
        }
    }
}

/// Rows that are taken through all panels before the next, so that what is summed along them
/// stays in the first cache; and those of a band.
pub(crate) const ROWS: usize = 64;
const _: () = assert!(ROWS.is_multiple_of(BLOCK));

/// Bytes above which a matrix lies in bands: it comes from beyond the core's own cache then.
const LARGE: usize = 1 << 20;

/// A kernel that takes a matrix tile by tile.
pub(crate) trait Sweep {
    /// Takes a tile of W vectors.
    fn tile<const W: usize>(&mut self, tile: &Tile);

    /// Takes a tile.
    #[inline(always)]
    fn take<A: Simd>(&mut self, tile: &Tile) {
        match tile.panel.width {
            1 => self.tile::<1>(tile),
            2 if const { width::<A>() >= 2 } => self.tile::<2>(tile),
            3 if const { width::<A>() >= 3 } => self.tile::<3>(tile),
            4 if const { width::<A>() >= 4 } => self.tile::<4>(tile),
            n => unreachable!("a panel of {n} vectors"),
        }
    }
}

/// Rows of W.
#[inline(always)]
pub(crate) fn rows_of<V, const W: usize>(values: &[V]) -> &[[V; W]] {
    values.as_chunks().0
}

/// W of a row from `first` on.
#[inline(always)]
pub(crate) fn row_of<V: Copy, const W: usize>(row: &[V], first: usize) -> [V; W] {
    *row[first..].first_chunk().expect("whole panels")
}

/// A panel's part of N rows that were [`Panels::cut`].
#[inline(always)]
pub(crate) fn steps_of<V: Copy, const W: usize, const N: usize>(
    cut: &[V],
    first: usize,
) -> [[V; W]; N] {
    *rows_of(&cut[N * first..]).first_chunk().expect("whole panels")
}

/// The rows of a tile that lies there, of an empty matrix none.
#[inline(always)]
pub(crate) fn tile_of<V, const W: usize>(matrix: &[V], vectors: Range<usize>) -> &[[V; W]] {
    if matrix.is_empty() { &[] } else { rows_of(&matrix[vectors]) }
}

/// The same, to write.
#[inline(always)]
pub(crate) fn tile_of_mut<V, const W: usize>(
    matrix: &mut [V],
    vectors: Range<usize>,
) -> &mut [[V; W]] {
    if matrix.is_empty() { &mut [] } else { matrix[vectors].as_chunks_mut().0 }
}

/// The rows of a tile of two matrices, to write.
#[inline(always)]
pub(crate) fn tiles_of_mut<'a, V, const W: usize>(
    [first, second]: &'a mut [&mut [V]; 2],
    vectors: Range<usize>,
) -> [&'a mut [[V; W]]; 2] {
    [tile_of_mut(first, vectors.clone()), tile_of_mut(second, vectors)]
}

/// `out + sum_r x_r b_r` over steps `FROM..N`, of vector `v`.
#[inline(always)]
pub(crate) fn add_steps<A: Simd, S: Lanes, const FROM: usize, const N: usize, const W: usize>(
    a: A,
    mut out: Vector<A, S>,
    x: &[Vector<A, S>; N],
    b: &[[Vector<A, S>; W]; N],
    v: usize,
) -> Vector<A, S> {
    for r in FROM..N {
        out = S::fma(a, x[r], b[r][v], out);
    }
    out
}

/// `n` rounded up to whole blocks.
pub(crate) fn padded(n: usize) -> usize {
    n.next_multiple_of(BLOCK)
}

/// A list of rows of equal length.
pub(crate) struct Rows<S: Lanes> {
    values: Aligned<S>,
    len: usize,
}

/// Some rows of [`Rows`], end to end.
#[derive(Clone, Copy)]
pub(crate) struct RowsView<'a, S> {
    pub(crate) values: &'a [S],
    /// Elements from a row to the next.
    pub(crate) stride: usize,
}

impl<S> RowsView<'_, S> {
    /// The same without the first elements of every row.
    pub(crate) fn skip(self, n: usize) -> Self {
        RowsView { values: self.values.get(n..).unwrap_or_default(), ..self }
    }
}

impl<S: Lanes> Rows<S> {
    /// `n` rows of zeros that hold `len` elements and padding.
    pub(crate) fn new(buffers: &mut Buffers, n: usize, len: usize) -> Self {
        Rows { values: buffers.zeros(n * padded(len)), len: padded(len) }
    }

    /// Row `r` with its padding.
    #[inline(always)]
    pub(crate) fn row(&self, r: usize) -> &[S] {
        &self.values[r * self.len..(r + 1) * self.len]
    }

    #[inline(always)]
    pub(crate) fn row_mut(&mut self, r: usize) -> &mut [S] {
        &mut self.values[r * self.len..(r + 1) * self.len]
    }

    /// Rows `r..`; none where there are none.
    #[inline(always)]
    pub(crate) fn from(&self, r: usize) -> RowsView<'_, S> {
        let at = (r * self.len).min(self.values.len());
        RowsView { values: &self.values[at..], stride: self.len }
    }

    /// Row `write` to write and row `read` to read.
    #[inline(always)]
    pub(crate) fn pair(&mut self, write: usize, read: usize) -> (&mut [S], &[S]) {
        let (write, read) = self.two_mut(write, read);
        (write, read)
    }

    /// Two rows to write.
    #[inline(always)]
    pub(crate) fn two_mut(&mut self, a: usize, b: usize) -> (&mut [S], &mut [S]) {
        let len = self.len;
        let [a, b] = self
            .values
            .get_disjoint_mut([a * len..(a + 1) * len, b * len..(b + 1) * len])
            .expect("two different rows");
        (a, b)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn fill(&mut self, value: S) {
        self.values.fill(value);
    }
}

/// Values for kernels that read some per neuron: `[neurons / BLOCK, n, BLOCK]`, of one element
/// each or, where the lanes of a vector are episodes, one for every lane.
pub(crate) struct Table<S: Lanes> {
    values: Aligned<S>,
    n: usize,
    /// Elements of a value.
    each: usize,
}

impl<S: Lanes> Table<S> {
    /// Room for `n` values a neuron.
    pub(crate) fn new(buffers: &mut Buffers, n_neurons: usize, n: usize, each: usize) -> Self {
        Table { values: buffers.zeros(padded(n_neurons) * n * each), n, each }
    }

    /// Starts anew with `n` values a neuron, at most as many as there is room for.
    pub(crate) fn reset(&mut self, n: usize) {
        self.n = n;
    }

    /// Sets value `k` of every neuron, from a padded row.
    #[inline(always)]
    pub(crate) fn set(&mut self, k: usize, row: &[S]) {
        let n = self.n;
        // blocks of known length are copied without a call
        if self.each == 1 {
            let (blocks, _) = self.values.as_chunks_mut::<BLOCK>();
            let blocks = blocks.iter_mut().skip(k).step_by(n);
            for (block, row) in blocks.zip(row.as_chunks::<BLOCK>().0) {
                *block = *row;
            }
        } else {
            let len = BLOCK * self.each;
            for (block, row) in self.values.chunks_exact_mut(n * len).zip(row.chunks(len)) {
                block[k * len..][..row.len()].copy_from_slice(row);
            }
        }
    }

    /// Sets value `k` of every neuron to a product.
    #[inline(always)]
    pub(crate) fn set_product<A: Simd>(&mut self, a: A, k: usize, x: &[S], y: &[S]) {
        let (n, len) = (self.n, BLOCK * self.each);
        if self.each == 1 {
            let (blocks, _) = self.values.as_chunks_mut::<BLOCK>();
            let blocks = blocks.iter_mut().skip(k).step_by(n);
            let rows = x.as_chunks::<BLOCK>().0.iter().zip(y.as_chunks::<BLOCK>().0);
            for (block, (x, y)) in blocks.zip(rows) {
                product(a, block, x, y);
            }
        } else {
            let rows = x.chunks(len).zip(y.chunks(len));
            for (block, (x, y)) in self.values.chunks_exact_mut(n * len).zip(rows) {
                product(a, &mut block[k * len..(k + 1) * len], x, y);
            }
        }
    }

    /// Values a neuron.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn blocks(&self) -> &[S] {
        &self.values
    }
}

/// `out = x y`.
#[inline(always)]
pub(crate) fn product<A: Simd, S: Lanes>(a: A, out: &mut [S], x: &[S], y: &[S]) {
    let factors = S::vectors::<A>(x).iter().zip(S::vectors::<A>(y));
    for (out, (&x, &y)) in S::vectors_mut::<A>(out).iter_mut().zip(factors) {
        *out = S::times(a, x, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_its_place_in_bands_or_not() {
        for (n_rows, n_columns) in [(1, 1), (63, 17), (64, 40), (65, 51), (200, 83), (129, 130)] {
            let matrix: Vec<f32> = (0_u16..).map(f32::from).take(n_rows * n_columns).collect();
            let whole = Panels::new::<f32>(n_rows, n_columns);
            for panels in [whole, Panels { band: ROWS, ..whole }] {
                let mut packed = vec![f32::NAN; panels.len()];
                let strided = Strided { values: &matrix, row: n_columns, column: 1 };
                panels.pack(&mut packed, 0, strided);
                let mut n = 0;
                panels.rows(|row, columns, place| {
                    n += columns.len();
                    let (at, len) = (row * n_columns + columns.start, columns.len());
                    assert_eq!(packed[place..place + len], matrix[at..at + len], "{panels:?}");
                });
                assert_eq!(n, matrix.len(), "{panels:?}");
                // some rows at a time, as they are added up
                let mut out = vec![f32::NAN; matrix.len()];
                for (chunk, out) in out.chunks_mut(48 * n_columns).enumerate() {
                    panels.add_rows(&packed, chunk * 48, true, out, n_columns);
                    panels.add_rows(&packed, chunk * 48, false, out, n_columns);
                }
                assert!(out.iter().zip(&matrix).all(|(out, x)| *out == 2.0 * x), "{panels:?}");
            }
        }
    }
}
