//! The CPU engine against float64 automatic differentiation
//! (`tests/reference/make_fixtures.py`).

mod common;

use hebbian::engine::cpu::Cpu;

#[test]
fn f64_agrees_with_automatic_differentiation_to_1e_11() {
    common::check_fixtures::<f64>(1e-11, |case| Some(Box::new(Cpu::new(&case.network).unwrap())));
}

#[test]
fn f32_agrees_with_automatic_differentiation_to_2e_5() {
    common::check_fixtures::<f32>(2e-5, |case| Some(Box::new(Cpu::new(&case.network).unwrap())));
}
