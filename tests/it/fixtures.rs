//! Every engine against float64 automatic differentiation
//! (`tests/reference/make_fixtures.py`), through the files that a user reads and writes.

use hebbian::engine::cpu;
use hebbian::engine::gpu::{Context, GpuEngine, Options};
use hebbian::engine::{PlanChoice, Storage};

use crate::common::check_fixtures;

#[test]
fn cpu_f64_agrees_with_automatic_differentiation_to_1e_11() {
    check_fixtures::<f64>(1e-11, |case| cpu::open(&case.network).unwrap());
}

#[test]
fn cpu_f32_agrees_with_automatic_differentiation_to_2e_5() {
    check_fixtures::<f32>(2e-5, |case| cpu::open(&case.network).unwrap());
}

/// Small fixtures run resident, the wide one streamed; then all of them streamed.
#[test]
fn gpu_agrees_with_automatic_differentiation_to_2e_5() {
    let options = Options { poison: true, ..Options::default() };
    let context = Context::new(options).expect("a GPU test needs an adapter");
    println!("{:?}", context.info());
    for plan in [PlanChoice::Auto, PlanChoice::Streamed] {
        let context = context.with(plan, Storage::F32);
        check_fixtures::<f32>(2e-5, |case| {
            Box::new(GpuEngine::new(&context, &case.network).unwrap())
        });
    }
}
