//! Matrices as panels a few vectors wide, so that a kernel that goes down a panel reads
//! memory in order and keeps its column sums in registers.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::buffer::{Aligned, zeros};
use crate::engine::cpu::simd::{Lanes, Vector, arch, lanes};

/// Vectors side by side in a panel, of which the last one may have fewer: so many that the sums
/// of a group of rows stay in registers.
pub(crate) const fn width<A: Simd>() -> usize {
    if A::REGISTER_COUNT < 32 { 2 } else { 4 }
}

/// The same for the instruction set in use.
pub(crate) fn width_in_use() -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        #[inline(always)]
        fn with_simd<A: Simd>(self, _: A) -> usize {
            width::<A>()
        }
    }
    arch().dispatch(Width)
}

/// Scalars of consecutive rows that lie together in a table. A multiple of every
/// vector's lanes, so rows padded to it hold whole vectors.
pub(crate) const BLOCK: usize = 16;

/// How `[n_rows, n_columns]` is cut into panels. A panel is row-major; panels follow each
/// other; the last is padded with zero columns to whole vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panels {
    pub(crate) n_rows: usize,
    pub(crate) n_columns: usize,
    pub(crate) lanes: usize,
    /// Vectors side by side.
    pub(crate) width: usize,
}

/// One panel, in vectors.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    /// Vectors of a row to its left.
    pub(crate) first: usize,
    /// Its width.
    pub(crate) width: usize,
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
        Panels { n_rows, n_columns, lanes: lanes::<S>(), width: width_in_use() }
    }

    /// Vectors of one row.
    pub(crate) fn vectors(&self) -> usize {
        self.n_columns.div_ceil(self.lanes)
    }

    /// Columns with the padding.
    pub(crate) fn padded(&self) -> usize {
        self.vectors() * self.lanes
    }

    /// Elements of all panels.
    pub(crate) fn len(&self) -> usize {
        self.n_rows * self.padded()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = Panel> + use<> {
        let (vectors, width) = (self.vectors(), self.width);
        (0..vectors)
            .step_by(width)
            .map(move |first| Panel { first, width: width.min(vectors - first) })
    }

    /// Where a panel lies, in vectors.
    pub(crate) fn vectors_of(&self, panel: Panel) -> Range<usize> {
        self.n_rows * panel.first..self.n_rows * (panel.first + panel.width)
    }

    /// Where a panel lies, in elements.
    fn range(&self, panel: Panel) -> Range<usize> {
        let at = self.n_rows * panel.first * self.lanes;
        at..at + self.n_rows * panel.width * self.lanes
    }

    /// Fills `out` from columns `first..` of a matrix.
    pub(crate) fn pack<S: Lanes>(&self, out: &mut [S], first: usize, matrix: Strided<'_, S>) {
        for panel in self.iter() {
            let from = panel.first * self.lanes;
            let width = panel.width * self.lanes;
            let columns = width.min(self.n_columns - from);
            let out = &mut out[self.range(panel)];
            let step = matrix.column;
            for (b, rows) in out.chunks_mut(BLOCK * width).enumerate() {
                let from = b * BLOCK * matrix.row + (first + from) * step;
                if step == 1 {
                    for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                        let at = from + i * matrix.row;
                        row[..columns].copy_from_slice(&matrix.values[at..at + columns]);
                    }
                } else {
                    for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                        for (j, value) in row[..columns].iter_mut().enumerate() {
                            *value = matrix.values[from + i * matrix.row + j * step];
                        }
                    }
                }
            }
        }
    }

    /// Cuts `n` rows of vectors into parts, a panel's parts of all rows end to end: those of a
    /// panel start at `n * panel.first`. Returns the rest of `out`.
    #[inline(always)]
    pub(crate) fn cut<'a, V: Copy>(
        &self,
        (rows, stride): (&[V], usize),
        n: usize,
        out: &'a mut [V],
    ) -> (&'a [V], &'a mut [V]) {
        let (out, rest) = out.split_at_mut(n * self.vectors());
        for panel in self.iter() {
            let parts = out[n * panel.first..].chunks_exact_mut(panel.width).take(n);
            for (r, part) in parts.enumerate() {
                part.copy_from_slice(&rows[r * stride + panel.first..][..panel.width]);
            }
        }
        (out, rest)
    }

    /// Adds rows from `first` on to those of a row-major matrix with rows of `stride`, or
    /// with `set` copies them there.
    pub(crate) fn add_rows<S: Lanes>(
        &self,
        panels: &[S],
        first: usize,
        set: bool,
        out: &mut [S],
        stride: usize,
    ) {
        for panel in self.iter() {
            let from = panel.first * self.lanes;
            let width = panel.width * self.lanes;
            let columns = width.min(self.n_columns - from);
            let rows = panels[self.range(panel)].chunks_exact(width).skip(first);
            for (row, out) in rows.zip(out.chunks_mut(stride)) {
                let out = &mut out[from..from + columns];
                if set {
                    out.copy_from_slice(&row[..columns]);
                } else {
                    for (out, &value) in out.iter_mut().zip(row) {
                        *out += value;
                    }
                }
            }
        }
    }

    /// Calls `take(row, columns, place)` for every row of every panel: its columns without the
    /// padding, and where the first one's element lies.
    pub(crate) fn rows(&self, mut take: impl FnMut(usize, Range<usize>, usize)) {
        for panel in self.iter() {
            let (from, width) = (panel.first * self.lanes, panel.width * self.lanes);
            let columns = from..(from + width).min(self.n_columns);
            let places = self.range(panel).step_by(width);
            places.enumerate().for_each(|(row, place)| take(row, columns.clone(), place));
        }
    }
}

/// Rows that an element-wise kernel takes at a time, so that what belongs to a column is
/// loaded once for all of them.
pub(crate) const GROUP: usize = 4;

/// Rows that are taken through all panels before the next, so that what is summed along them
/// stays in the first cache.
pub(crate) const ROWS: usize = 32;
const _: () = assert!(ROWS.is_multiple_of(GROUP));

/// A kernel that goes down a panel, some rows at a time.
pub(crate) trait Groups {
    /// Rows `row..row + G`, W vectors each; a group lies within a block.
    fn group<const W: usize, const G: usize>(&mut self, row: usize);

    /// Some rows of a panel of that width; the first is the first of a group.
    #[inline(always)]
    fn down<A: Simd>(&mut self, rows: Range<usize>, width: usize) {
        match width {
            1 => self.down_by::<1>(rows),
            2 => self.down_by::<2>(rows),
            _ if self::width::<A>() == 2 => unreachable!("a panel of {width} vectors"),
            3 => self.down_by::<3>(rows),
            _ => self.down_by::<4>(rows),
        }
    }

    #[inline(always)]
    fn down_by<const W: usize>(&mut self, rows: Range<usize>) {
        let whole = rows.end / GROUP * GROUP;
        for row in (rows.start..whole).step_by(GROUP) {
            self.group::<W, GROUP>(row);
        }
        for row in whole.max(rows.start)..rows.end {
            self.group::<W, 1>(row);
        }
    }
}

/// Rows of W.
#[inline(always)]
pub(crate) fn rows_of<V, const W: usize>(values: &[V]) -> &[[V; W]] {
    values.as_chunks().0
}

/// The part of `values` that belongs to the G rows of W vectors from `row` on.
#[inline(always)]
pub(crate) fn group_of<V, const W: usize, const G: usize>(values: &[V], row: usize) -> &[V] {
    &values[row * W..][..G * W]
}

/// The same, to write.
#[inline(always)]
pub(crate) fn group_of_mut<V, const W: usize, const G: usize>(
    values: &mut [V],
    row: usize,
) -> &mut [V] {
    &mut values[row * W..][..G * W]
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
    pub(crate) fn new(n: usize, len: usize) -> Self {
        Rows { values: zeros(n * padded(len)), len: padded(len) }
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

    /// Row `r` in vectors.
    #[inline(always)]
    pub(crate) fn vectors<A: Simd>(&self, r: usize) -> &[Vector<A, S>] {
        S::vectors::<A>(self.row(r))
    }

    /// Rows `r..` end to end, in vectors.
    #[inline(always)]
    pub(crate) fn vectors_from_mut<A: Simd>(&mut self, r: usize) -> &mut [Vector<A, S>] {
        S::vectors_mut::<A>(&mut self.values[r * self.len..])
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
    pub(crate) fn new(n_neurons: usize, n: usize, each: usize) -> Self {
        Table { values: zeros(padded(n_neurons) * n * each), n, each }
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
        let rows = x.chunks(len).zip(y.chunks(len));
        for (block, (x, y)) in self.values.chunks_exact_mut(n * len).zip(rows) {
            let out = S::vectors_mut::<A>(&mut block[k * len..(k + 1) * len]);
            let factors = S::vectors::<A>(x).iter().zip(S::vectors::<A>(y));
            for (out, (&x, &y)) in out.iter_mut().zip(factors) {
                *out = S::times(a, x, y);
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
