//! `hebbian grad`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::case::Case;
use crate::cli::{Common, shown};
use crate::engine::check_cpu;
use crate::engine::cpu;
use crate::engine::{Device, Engine, Want};
use crate::error::Error;
use crate::files;
use crate::model::Scalar;

/// Outputs and gradients of a case file
#[derive(clap::Args)]
pub(super) struct Grad {
    /// The case, a safetensors file (format: README)
    case: PathBuf,
    /// Where to write outputs and gradients
    #[arg(long)]
    out: PathBuf,
    /// f64 runs on the CPU only
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    F32,
    F64,
}

impl Grad {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        files::check_writable(&self.out)?;
        if files::are_one(&self.case, &self.out) {
            return Err(Error::file(&self.out, "the case itself", "another file to write").into());
        }
        let device = Device::from_name(&self.common.device)?;
        match (self.precision, device) {
            (Precision::F32, _) => self.answer::<f32>(|case| self.common.open(&case.network)),
            (Precision::F64, Device::Gpu(_)) => {
                Err(Error::value("--precision", "f64 on a GPU", "f32, or --device cpu").into())
            }
            (Precision::F64, _) => {
                let (plan, traces) = self.common.layout.choices()?;
                check_cpu(plan, traces)?;
                self.answer::<f64>(|case| cpu::open(&case.network))
            }
        }
    }

    fn answer<S: Scalar>(
        &self,
        engine: impl FnOnce(&Case<S>) -> crate::error::Result<Box<dyn Engine<S>>>,
    ) -> anyhow::Result<u8> {
        let case = Case::<S>::read(&self.case)?;
        let mut engine = engine(&case)?;
        let want = Want { activity: true, traces: true, gradients: true };
        let program = engine.program(case.episodes.shape, want)?;
        let description = engine.describe(&program)?;
        self.common.say(format_args!("{}: {}", description.device, description.plan));
        self.common.warn_if_software(&description);
        for note in &case.notes {
            self.common.say(format_args!("note: {note}"));
        }
        engine.set_parameters(&case.parameters)?;
        let outputs = engine.run(&program, &case.episodes, want)?;
        let loss: Vec<f64> = outputs.loss.iter().map(|l| l.to_f64()).collect();
        case.write_outputs(&self.out, outputs)?;
        if self.common.json {
            let answer = serde_json::json!({
                "schema": "hebbian.grad/1",
                "out": shown(&self.out),
                "device": description.device,
                "plan": description.plan.to_string(),
                "loss": loss,
            });
            put!("{answer}");
        } else {
            let text: Vec<String> = loss.iter().map(|l| format!("{l:.6}")).collect();
            put!("loss {}; everything in {}", text.join(", "), self.out.display());
        }
        Ok(0)
    }
}
