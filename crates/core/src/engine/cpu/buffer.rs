//! Memory for vectors: aligned, zero at first, and in large pages where it is large.

use std::ops::{Deref, DerefMut};

use aligned_vec::{AVec, ConstAlign};
use memmap2::MmapMut;

use crate::engine::cpu::simd::Lanes;

/// From this size on a buffer asks for large pages: with small ones a sweep over a matrix of
/// 1001 neurons spends a third of its time on looking pages up.
const LARGE: usize = 1 << 20;
const LARGE_PAGE: usize = 2 << 20;

/// A fixed number of numbers, aligned to a cache line.
pub(crate) struct Aligned<S: Lanes>(Memory<S>);

enum Memory<S: Lanes> {
    Heap(AVec<S, ConstAlign<64>>),
    /// Bytes `start..start + len` of a mapping.
    Pages(MmapMut, std::ops::Range<usize>),
}

/// Makes buffers, or only counts what they would take: what is planned and what is made come
/// from the same code.
pub(crate) struct Buffers {
    counts: bool,
    bytes: u64,
}

impl Buffers {
    /// What `make` makes.
    pub(crate) fn make<T>(make: impl FnOnce(&mut Self) -> T) -> T {
        make(&mut Buffers { counts: false, bytes: 0 })
    }

    /// Bytes that the buffers of what `make` makes would take.
    pub(crate) fn count<T>(make: impl FnOnce(&mut Self) -> T) -> u64 {
        let mut buffers = Buffers { counts: true, bytes: 0 };
        make(&mut buffers);
        buffers.bytes
    }

    /// `n` zeros; none where they are counted.
    pub(crate) fn zeros<S: Lanes>(&mut self, n: usize) -> Aligned<S> {
        self.bytes += taken(n * size_of::<S>()) as u64;
        zeros(if self.counts { 0 } else { n })
    }

    /// `n` zeros for the first trace, and for the second where there are `two`.
    pub(crate) fn traces<S: Lanes>(&mut self, n: usize, two: bool) -> [Aligned<S>; 2] {
        [self.zeros(n), self.zeros(if two { n } else { 0 })]
    }

    /// As many of the same as `n`; none where they are counted.
    pub(crate) fn several<T>(&mut self, n: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        if !self.counts {
            return (0..n).map(|_| make(self)).collect();
        }
        self.bytes += n as u64 * Self::count(make);
        Vec::new()
    }
}

/// `n` zeros.
pub(crate) fn zeros<S: Lanes>(n: usize) -> Aligned<S> {
    let bytes = n * size_of::<S>();
    if bytes >= LARGE
        && let Some(memory) = pages(bytes)
    {
        return Aligned(memory);
    }
    Aligned(Memory::Heap(AVec::from_iter(64, std::iter::repeat_n(S::ZERO, n))))
}

/// Bytes that a buffer takes of the machine's memory.
fn taken(bytes: usize) -> usize {
    if bytes >= LARGE { bytes.next_multiple_of(LARGE_PAGE) } else { bytes }
}

/// A mapping that holds `bytes` from the start of a large page on.
fn pages<S: Lanes>(bytes: usize) -> Option<Memory<S>> {
    let map = MmapMut::map_anon(taken(bytes) + LARGE_PAGE).ok()?;
    // a wish: without it the same memory comes in small pages
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let start = map.as_ptr().align_offset(LARGE_PAGE);
    (start <= LARGE_PAGE).then(|| Memory::Pages(map, start..start + bytes))
}

impl<S: Lanes> Deref for Aligned<S> {
    type Target = [S];
    #[inline(always)]
    fn deref(&self) -> &[S] {
        match &self.0 {
            Memory::Heap(values) => values,
            Memory::Pages(map, range) => bytemuck::cast_slice(&map[range.clone()]),
        }
    }
}

impl<S: Lanes> DerefMut for Aligned<S> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [S] {
        match &mut self.0 {
            Memory::Heap(values) => values,
            Memory::Pages(map, range) => bytemuck::cast_slice_mut(&mut map[range.clone()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_size_are_aligned_and_zero() {
        for n in [0, 1, 1000, LARGE / 4 - 1, LARGE / 4, 700_001] {
            let mut buffer = Buffers::make(|buffers| buffers.zeros::<f32>(n));
            assert_eq!(buffer.len(), n);
            assert_eq!(buffer.as_ptr().align_offset(64), 0, "{n}");
            assert!(buffer.iter().all(|x| x.to_bits() == 0), "{n}");
            buffer.fill(1.0);
            assert!(buffer.iter().all(|&x| x > 0.0), "{n}");
        }
    }

    #[test]
    fn buffers_are_counted_without_being_made() {
        let make = |buffers: &mut Buffers| {
            (buffers.zeros::<f64>(5), buffers.several(3, |buffers| buffers.zeros::<f32>(7)))
        };
        assert_eq!(Buffers::count(make), 5 * 8 + 3 * 7 * 4);
        let (one, three) = Buffers::make(make);
        assert_eq!((one.len(), three.len(), three[2].len()), (5, 3, 7));
        // more than there is memory for
        assert_eq!(Buffers::count(|b| b.several(1 << 40, make)), (1 << 40) * 124);
        assert_eq!(Buffers::count(|b| b.zeros::<f32>(LARGE)), 4 * LARGE as u64);
    }
}
