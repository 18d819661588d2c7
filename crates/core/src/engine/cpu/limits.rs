//! What this processor can do, measured: f32 multiply-adds and bytes read a second, on all
//! threads together.

use std::hint::black_box;
use std::time::Instant;

use pulp::{Simd, WithSimd};

use crate::engine::cpu::buffer::zeros;
use crate::engine::cpu::simd::{Instructions, Lanes};

/// Independent sums: enough to hide the latency of a multiply-add.
const CHAINS: usize = 12;

/// Repeats an action on every thread for a tenth of a second; returns how often a second,
/// all threads together.
fn rate(action: impl Fn(usize) + Sync) -> f64 {
    let threads = rayon::current_num_threads();
    std::thread::scope(|scope| {
        let action = &action;
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    action(thread);
                    let (start, mut times) = (Instant::now(), 0.0);
                    while start.elapsed().as_secs_f64() < 0.1 {
                        action(thread);
                        times += 1.0;
                    }
                    times / start.elapsed().as_secs_f64()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(0.0)).sum()
    })
}

/// f32 multiply-adds a second.
pub fn multiply_adds() -> f64 {
    struct Chains(f32);
    const ROUNDS: usize = 10_000;
    impl WithSimd for Chains {
        type Output = f64;
        #[inline(always)]
        fn with_simd<A: Simd>(self, a: A) -> f64 {
            let x = f32::splat(a, self.0);
            let mut sums = [f32::splat(a, 1.0); CHAINS];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = f32::fma(a, x, *sum, x);
                }
            }
            black_box(sums);
            let lanes = size_of_val(&x) / size_of::<f32>();
            crate::engine::cpu::to_f64(lanes * CHAINS * ROUNDS)
        }
    }
    let arch = Instructions::<f32>::widest();
    let each = arch.run(Chains(black_box(1e-9)));
    each * rate(|_| {
        arch.run(Chains(black_box(1e-9)));
    })
}

/// Bytes a second that all threads together read from buffers of `bytes` each.
pub fn read_bandwidth(bytes: usize) -> f64 {
    struct Sum<'a>(&'a [f32]);
    impl WithSimd for Sum<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<A: Simd>(self, a: A) {
            let mut sums = [f32::splat(a, 0.0); CHAINS];
            for chunk in f32::vectors::<A>(self.0).chunks_exact(CHAINS) {
                for (sum, &value) in sums.iter_mut().zip(chunk) {
                    *sum = f32::plus(a, *sum, value);
                }
            }
            black_box(sums);
        }
    }
    let arch = Instructions::<f32>::widest();
    let threads = rayon::current_num_threads();
    let buffers: Vec<_> = (0..threads).map(|_| zeros::<f32>(bytes / 4)).collect();
    crate::engine::cpu::to_f64(bytes) * rate(|thread| arch.run(Sum(&buffers[thread])))
}
