//! The GPU engine against float64 automatic differentiation
//! (`tests/reference/make_fixtures.py`), with every fresh buffer poisoned.

mod common;

use hebbian::engine::gpu::{Context, GpuEngine, Options};

#[test]
fn gpu_agrees_with_automatic_differentiation_to_2e_5() {
    let options = Options { poison: true, ..Options::default() };
    let context = Context::new(options).expect("a GPU test needs an adapter");
    println!("{:?}", context.info());
    common::check_fixtures::<f32>(2e-5, |case| {
        Some(Box::new(GpuEngine::new(&context, &case.network).unwrap()))
    });
}
