//! Vectors of f32 and f64 under one set of names, for the widest instruction set that
//! the processor has.
//!
//! Code that computes with vectors is in functions marked `inline(always)`, never in
//! closures: what is not inlined is compiled without the instruction set, ten times slower.
//! Every kernel is compiled for each instruction set, scalar type and width: a choice that these
//! alone decide is made by `if const`, which compiles one branch, and arrays in kernels are
//! filled by loops, for `map` of an array is ten functions to the compiler.

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use crate::error::{Error, Result};
use crate::model::Scalar;

/// A scalar type with vectors of it.
pub(crate) trait Lanes: Scalar + ndarray::LinalgScalar {
    /// A vector on instruction set `A`.
    type Vector<A: Simd>: Copy + bytemuck::Pod;

    fn splat<A: Simd>(a: A, x: Self) -> Self::Vector<A>;
    fn plus<A: Simd>(a: A, x: Self::Vector<A>, y: Self::Vector<A>) -> Self::Vector<A>;
    fn times<A: Simd>(a: A, x: Self::Vector<A>, y: Self::Vector<A>) -> Self::Vector<A>;
    /// x y + z.
    fn fma<A: Simd>(
        a: A,
        x: Self::Vector<A>,
        y: Self::Vector<A>,
        z: Self::Vector<A>,
    ) -> Self::Vector<A>;
    /// The sum of all lanes.
    fn total<A: Simd>(a: A, x: Self::Vector<A>) -> Self;
    /// x clipped to [-bound, bound].
    fn clip<A: Simd>(a: A, x: Self::Vector<A>, bound: Self::Vector<A>) -> Self::Vector<A>;
    /// z where x equals y, else 0.
    fn where_equal<A: Simd>(
        a: A,
        x: Self::Vector<A>,
        y: Self::Vector<A>,
        z: Self::Vector<A>,
    ) -> Self::Vector<A>;
    /// A slice as whole vectors; its length is a multiple of theirs.
    fn vectors<A: Simd>(slice: &[Self]) -> &[Self::Vector<A>];
    /// The same, to write.
    fn vectors_mut<A: Simd>(slice: &mut [Self]) -> &mut [Self::Vector<A>];
    /// Fewer numbers than a vector has, and zeros behind them.
    fn part<A: Simd>(a: A, slice: &[Self]) -> Self::Vector<A>;
    /// Sets fewer numbers than a vector has to its first.
    fn set_part<A: Simd>(a: A, slice: &mut [Self], x: Self::Vector<A>);
}

/// A vector of `S` on instruction set `A`.
pub(crate) type Vector<A, S> = <S as Lanes>::Vector<A>;

/// The instruction set that kernels of `S` run on: the widest of this processor.
#[derive(Clone, Copy)]
pub(crate) struct Instructions<S>(pulp::Arch, PhantomData<S>);

/// The environment variable that keeps to narrower vectors, to compare with.
const VARIABLE: &str = "HEBBIAN_SIMD";

/// What it asks for: the processor's widest, AVX2 at most, or single numbers.
fn asked_for() -> Result<pulp::Arch> {
    let refuse = |found: String, wanted: &str| Err(Error::value(VARIABLE, found, wanted));
    let Some(name) = std::env::var_os(VARIABLE) else { return Ok(pulp::Arch::new()) };
    match name.to_str() {
        Some("") => Ok(pulp::Arch::new()),
        Some("scalar") => Ok(pulp::Arch::Scalar),
        #[cfg(target_arch = "x86_64")]
        Some("avx2") => match pulp::x86::V3::try_new() {
            Some(avx2) => Ok(pulp::Arch::V3(avx2)),
            None => refuse("avx2".into(), "scalar, which is all that this processor has"),
        },
        _ => refuse(format!("{}", name.display()), "avx2, scalar, or no such variable"),
    }
}

impl<S: Lanes> Instructions<S> {
    /// The widest, or what the environment asks for.
    pub(crate) fn widest() -> Self {
        static ARCH: std::sync::OnceLock<pulp::Arch> = std::sync::OnceLock::new();
        let arch = *ARCH.get_or_init(|| asked_for().unwrap_or_default());
        Instructions(arch, PhantomData)
    }

    /// Checks what the environment asks for.
    pub(crate) fn check() -> Result<()> {
        asked_for().map(|_| ())
    }

    /// Runs a job.
    #[inline(always)]
    pub(crate) fn run<J: WithSimd>(self, job: J) -> J::Output {
        self.run_with::<true, J>(job)
    }

    /// Runs a job for vectors of several lanes; it is not compiled for others.
    #[inline(always)]
    pub(crate) fn run_lanes<J: WithSimd>(self, job: J) -> J::Output {
        self.run_with::<false, J>(job)
    }

    /// Each branch compiles the job once more. AVX-512 serves f32 alone: f64 is the reference and
    /// runs on AVX2 there. ONE: whether vectors of one lane serve too.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn run_with<const ONE: bool, J: WithSimd>(self, job: J) -> J::Output {
        match self.0 {
            pulp::Arch::V4(avx512) => {
                if const { size_of::<S>() == 4 } {
                    Simd::vectorize(avx512, job)
                } else {
                    Simd::vectorize(*avx512, job)
                }
            }
            pulp::Arch::V3(avx2) => Simd::vectorize(avx2, job),
            _ => {
                if const { ONE } {
                    Simd::vectorize(pulp::Scalar, job)
                } else {
                    unreachable!("a kernel of several lanes for single numbers")
                }
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    fn run_with<const ONE: bool, J: WithSimd>(self, job: J) -> J::Output {
        self.0.dispatch(job)
    }
}

/// The name of the instruction set in use.
#[must_use]
pub fn instructions() -> &'static str {
    match format!("{:?}", Instructions::<f32>::widest().0).split('(').next() {
        Some("V4") => "AVX-512",
        Some("V3") => "AVX2",
        Some(name) if name.starts_with("Neon") => "NEON",
        _ => "scalar",
    }
}

/// Elements in one vector of the instruction set in use.
pub(crate) fn lanes<S: Lanes>() -> usize {
    struct Count<S>(PhantomData<S>);
    impl<S: Lanes> WithSimd for Count<S> {
        type Output = usize;
        #[inline(always)]
        fn with_simd<A: Simd>(self, _: A) -> usize {
            size_of::<S::Vector<A>>() / size_of::<S>()
        }
    }
    Instructions::<S>::widest().run(Count::<S>(PhantomData))
}

/// Several slices as whole vectors.
#[inline(always)]
pub(crate) fn vectors_of<A: Simd, S: Lanes, const N: usize>(
    slices: [&[S]; N],
) -> [&[Vector<A, S>]; N] {
    let mut out = [&[][..]; N];
    for (out, slice) in out.iter_mut().zip(slices) {
        *out = S::vectors::<A>(slice);
    }
    out
}

/// Two slices as whole vectors, to write.
#[inline(always)]
pub(crate) fn vectors_mut_of<A: Simd, S: Lanes>(
    [first, second]: [&mut [S]; 2],
) -> [&mut [Vector<A, S>]; 2] {
    [S::vectors_mut::<A>(first), S::vectors_mut::<A>(second)]
}

macro_rules! lanes {
    ($scalar:ty, $vector:ident, $splat:ident, $add:ident, $mul:ident, $fma:ident, $min:ident,
     $max:ident, $neg:ident, $equal:ident, $select:ident, $reduce:ident, $view:ident,
     $view_mut:ident, $load:ident, $store:ident) => {
        impl Lanes for $scalar {
            type Vector<A: Simd> = A::$vector;

            #[inline(always)]
            fn splat<A: Simd>(a: A, x: Self) -> A::$vector {
                a.$splat(x)
            }
            #[inline(always)]
            fn plus<A: Simd>(a: A, x: A::$vector, y: A::$vector) -> A::$vector {
                a.$add(x, y)
            }
            #[inline(always)]
            fn times<A: Simd>(a: A, x: A::$vector, y: A::$vector) -> A::$vector {
                a.$mul(x, y)
            }
            #[inline(always)]
            fn fma<A: Simd>(a: A, x: A::$vector, y: A::$vector, z: A::$vector) -> A::$vector {
                a.$fma(x, y, z)
            }
            #[inline(always)]
            fn total<A: Simd>(a: A, x: A::$vector) -> Self {
                a.$reduce(x)
            }
            #[inline(always)]
            fn clip<A: Simd>(a: A, x: A::$vector, bound: A::$vector) -> A::$vector {
                a.$max(a.$min(x, bound), a.$neg(bound))
            }
            #[inline(always)]
            fn where_equal<A: Simd>(
                a: A,
                x: A::$vector,
                y: A::$vector,
                z: A::$vector,
            ) -> A::$vector {
                a.$select(a.$equal(x, y), z, a.$splat(0.0))
            }
            #[inline(always)]
            fn vectors<A: Simd>(slice: &[Self]) -> &[A::$vector] {
                A::$view(slice).0
            }
            #[inline(always)]
            fn vectors_mut<A: Simd>(slice: &mut [Self]) -> &mut [A::$vector] {
                A::$view_mut(slice).0
            }
            #[inline(always)]
            fn part<A: Simd>(a: A, slice: &[Self]) -> A::$vector {
                a.$load(slice)
            }
            #[inline(always)]
            fn set_part<A: Simd>(a: A, slice: &mut [Self], x: A::$vector) {
                a.$store(slice, x);
            }
        }
    };
}

lanes!(
    f32,
    f32s,
    splat_f32s,
    add_f32s,
    mul_f32s,
    mul_add_f32s,
    min_f32s,
    max_f32s,
    neg_f32s,
    equal_f32s,
    select_f32s,
    reduce_sum_f32s,
    as_simd_f32s,
    as_mut_simd_f32s,
    partial_load_f32s,
    partial_store_f32s
);
lanes!(
    f64,
    f64s,
    splat_f64s,
    add_f64s,
    mul_f64s,
    mul_add_f64s,
    min_f64s,
    max_f64s,
    neg_f64s,
    equal_f64s,
    select_f64s,
    reduce_sum_f64s,
    as_simd_f64s,
    as_mut_simd_f64s,
    partial_load_f64s,
    partial_store_f64s
);
