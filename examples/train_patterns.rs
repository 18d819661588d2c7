//! Trains two networks to memorise binary patterns, and scores them on patterns that they
//! have never seen: `cargo run --release --example train_patterns`.

use std::sync::atomic::AtomicBool;

use hebbian::engine::{Device, open};
use hebbian::train::{Outcome, resolve, train};

fn main() -> hebbian::error::Result<()> {
    let changes = ["task.bits=100", "networks=2", "updates=120"].map(String::from);
    let mut config = resolve("patterns", None, None, &changes, toml::Table::new())?;
    let task = config.task()?;

    let mut engine = open(Device::Auto, &task.network())?;
    engine.set_parameters(&task.initial(config.seed))?;
    train(&config, &*task, &mut *engine, &AtomicBool::new(false), |record| {
        if record.update.is_multiple_of(20) {
            println!("update {}: error {:.3}", record.update, record.summary());
        }
        Ok(())
    })?;

    let parameters = engine.parameters()?;
    let outcome = Outcome::measure(&*task, &mut *engine, &parameters, config.seed, 50)?;
    println!("held out, plastic:        {:.3}", outcome.trained.mean());
    println!("held out, plasticity off: {:.3}", outcome.without_plasticity.mean());
    Ok(())
}
