//! Embeds a trained network and lets it remember: it is shown a pattern, lives on, and
//! completes the pattern from a half: `cargo run --release --example remember`.

use std::sync::atomic::AtomicBool;

use hebbian::engine::{Device, open};
use hebbian::memory::{Memory, Stretch};
use hebbian::train::{resolve, train};

fn main() -> hebbian::error::Result<()> {
    let changes = ["task.bits=64", "updates=150"].map(String::from);
    let mut config = resolve("patterns", None, None, &changes, toml::Table::new())?;
    let task = config.task()?;
    let mut engine = open(Device::Auto, &task.network())?;
    engine.set_parameters(&task.initial(config.seed))?;
    train(&config, &*task, &mut *engine, &AtomicBool::new(false), |_| Ok(()))?;

    // bits are currents of +-20, the last neuron is the bias
    let pattern: Vec<f32> = (0..64).map(|k| if k * k % 7 < 3 { 20.0 } else { -20.0 }).collect();
    let with_bias = |bits: &[f32]| [bits, &[20.0]].concat();
    let mut memory = Memory::new(&task.network(), 1)?;
    for (bits, n_steps) in [(&pattern[..], 6), (&[0.0; 64][..], 4)] {
        memory.live(&mut *engine, &Stretch { n_steps, stimulus: &with_bias(bits), clamp: None })?;
    }

    let cue = [&pattern[..32], &[0.0; 32][..]].concat();
    memory.live(&mut *engine, &Stretch { n_steps: 6, stimulus: &with_bias(&cue), clamp: None })?;
    let wrong = (32..64).filter(|&k| memory.y()[k] * pattern[k] <= 0.0).count();
    println!("{wrong} of the 32 hidden bits are wrong after {} steps", memory.steps());
    Ok(())
}
