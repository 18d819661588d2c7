//! Vectors of f32 and f64 under one set of names, for the widest instruction set that
//! the processor has.
//!
//! Code that computes with vectors is in functions marked `inline(always)`, never in
//! closures: what is not inlined is compiled without the instruction set, ten times slower.

use pulp::Simd;

use crate::model::Scalar;

/// A scalar type with vectors of it.
pub(crate) trait Lanes: Scalar {
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
}

/// A vector of `S` on instruction set `A`.
pub(crate) type Vector<A, S> = <S as Lanes>::Vector<A>;

/// The widest instruction set at hand; AVX2 at most where the environment variable
/// `HEBBIAN_SIMD` is `avx2`, to compare with.
pub(crate) fn arch() -> pulp::Arch {
    static ARCH: std::sync::OnceLock<pulp::Arch> = std::sync::OnceLock::new();
    *ARCH.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        if std::env::var_os("HEBBIAN_SIMD").is_some_and(|name| name == "avx2")
            && let Some(avx2) = pulp::x86::V3::try_new()
        {
            return pulp::Arch::V3(avx2);
        }
        pulp::Arch::new()
    })
}

/// The name of the instruction set in use.
#[must_use]
pub fn instructions() -> &'static str {
    match format!("{:?}", arch()).split('(').next() {
        Some("V4") => "AVX-512",
        Some("V3") => "AVX2",
        Some(name) if name.starts_with("Neon") => "NEON",
        _ => "scalar",
    }
}

/// Elements in one vector of the instruction set in use.
pub(crate) fn lanes<S: Lanes>() -> usize {
    struct Count<S>(std::marker::PhantomData<S>);
    impl<S: Lanes> pulp::WithSimd for Count<S> {
        type Output = usize;
        #[inline(always)]
        fn with_simd<A: Simd>(self, _: A) -> usize {
            size_of::<S::Vector<A>>() / size_of::<S>()
        }
    }
    arch().dispatch(Count::<S>(std::marker::PhantomData))
}

macro_rules! lanes {
    ($scalar:ty, $vector:ident, $splat:ident, $add:ident, $mul:ident, $fma:ident, $min:ident,
     $max:ident, $neg:ident, $equal:ident, $select:ident, $reduce:ident, $view:ident,
     $view_mut:ident) => {
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
    as_mut_simd_f32s
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
    as_mut_simd_f64s
);
