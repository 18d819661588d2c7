//! Times a life on a device: 1,000 single steps of a network of 1001 neurons, and the bytes that came
//! back: `cargo run --release --example live -- cpu` (or gpu).

use std::time::Instant;

use hebbian::engine::{Device, open};
use hebbian::memory::{Memory, Stretch};
use hebbian::task::{NetworkConfig, Patterns, PatternsConfig, Task};

fn main() -> hebbian::error::Result<()> {
    let device = std::env::args().nth(1).unwrap_or_else(|| "auto".into());
    let task = Patterns::new(&PatternsConfig::paper(), &NetworkConfig::paper(), 1, 0)?;
    let mut engine = open(Device::from_name(&device)?, &task.network())?;
    engine.set_parameters(&task.initial(0))?;
    let stimulus: Vec<f32> = (0..1001).map(|k| if k * k % 7 < 3 { 20.0 } else { -20.0 }).collect();
    let stretch = Stretch { n_steps: 1, stimulus: &stimulus, clamp: None };
    let mut memory = Memory::new(&task.network(), 1)?;
    let mut life = memory.wake(&mut *engine)?;
    // what compiles and loads on first use
    life.live(&stretch)?;
    let start = Instant::now();
    for _ in 0..1000 {
        life.live(&stretch)?;
    }
    println!("{:.3} ms a step", start.elapsed().as_secs_f64());
    life.rest()
}
