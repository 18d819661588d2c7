//! `hebbian inspect`.

use std::path::PathBuf;

use serde_json::json;

use crate::cli::{Common, DataFlags, MomentFlag, number, shown};
use crate::files;
use crate::report::inspect_report;
use crate::train::{Effect, Estimate, Moment, Run, inspect};

/// Says what was learned: alpha beside w, what the trace does to connections
///
/// Writes one HTML file.
#[derive(clap::Args)]
pub(super) struct Inspect {
    /// A run directory
    run: PathBuf,
    /// The page [default: inspect.html in the run directory]
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    #[command(flatten)]
    moment: MomentFlag,
    #[command(flatten)]
    places: DataFlags,
    #[command(flatten)]
    common: Common,
}

impl Inspect {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let run = Run::open(&self.run)?;
        let mut config = run.config()?;
        self.places.find(&mut config.task)?;
        let task = config.task()?;
        let network = task.network();
        let parameters = run.parameters(&network, Moment::from_name(&self.moment.update)?)?;
        let initial = config.initial(&*task)?;
        let mut engine = self.common.open(&network)?;
        let found = inspect(&*task, &mut *engine, &parameters, &initial, config.seed)?;
        let out = self.out.unwrap_or_else(|| run.folder().join("inspect.html"));
        let width = task.recall().filter(|recall| !recall.binary).map(|recall| recall.width);
        let title = format!("{}: what was learned", task.name());
        let page =
            inspect_report(&title, &run.label(), &network, &parameters, &initial, &found, width);
        files::write(&out, page.as_bytes())?;
        if self.common.json {
            let estimate =
                |e: Estimate| json!({ "mean": number(e.mean), "ci95": e.ci95.map(number) });
            let effect = |e: &Effect| {
                json!({
                    "amplifies": e.amplifies,
                    "attenuates": e.attenuates,
                    "turns": e.turns,
                })
            };
            let effects = |list: &[Effect]| list.iter().map(effect).collect::<Vec<_>>();
            put!(
                "{}",
                json!({
                    "schema": "hebbian.inspect/1",
                    "run": shown(run.folder()),
                    "page": shown(&out),
                    "networks": network.n_networks,
                    "same_sign": estimate(found.same_sign),
                    "same_sign_if_independent": estimate(found.same_sign_if_independent),
                    "same_sign_weighted": estimate(found.same_sign_weighted),
                    "same_sign_weighted_if_independent":
                        estimate(found.same_sign_weighted_if_independent),
                    "eta": found.eta,
                    "drift_w": found.drift_w,
                    "drift_alpha": found.drift_alpha,
                    "moments": found.moments,
                    "over_time": effects(&found.over_time),
                    "by_size": effects(&found.by_size),
                    "spectrum": found.spectrum,
                    "modulator": found.modulator,
                })
            );
            return Ok(0);
        }
        let percent = |e: Estimate| e.text(|share| format!("{:.2} %", 100.0 * share));
        put!("w and alpha have the same sign   {}", percent(found.same_sign));
        put!("  were they independent          {}", percent(found.same_sign_if_independent));
        put!("  weighted by |w alpha|          {}", percent(found.same_sign_weighted));
        if let Some(last) = found.over_time.last() {
            put!(
                "at the end of an episode alpha H amplifies {:.1} % of w, attenuates {:.1} %, turns \
                 {:.1} %",
                100.0 * last.amplifies,
                100.0 * last.attenuates,
                100.0 * last.turns
            );
        }
        put!("page: {}", out.display());
        Ok(0)
    }
}
