//! `hebbian export`.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::{DataFlags, MomentFlag, shown, talk};
use crate::error::{Error, bytes};
use crate::export::{Exported, held_out_stimuli};
use crate::files;
use crate::train::{Moment, Run};

/// Writes a trained network for others: a page that runs it in a browser, or its tensors
#[derive(clap::Args)]
pub(super) struct Export {
    /// A run directory
    run: PathBuf,
    /// One HTML page that runs the network in a browser and asks for nothing else (patterns, images, copy)
    #[arg(long, value_name = "FILE.html")]
    page: Option<PathBuf>,
    /// NumPy's archive: w, alpha, eta, ..., and `settings` as JSON
    #[arg(long, value_name = "FILE.npz")]
    npz: Option<PathBuf>,
    /// A safetensors file: w, alpha, eta, ..., and `settings` as JSON in its metadata
    #[arg(long, value_name = "FILE")]
    safetensors: Option<PathBuf>,
    /// Which of the run's networks, from 0
    #[arg(long, default_value_t = 0)]
    network: usize,
    /// Held-out stimuli that the page offers to try
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    #[arg(requires = "page")]
    examples: u16,
    #[command(flatten)]
    moment: MomentFlag,
    #[command(flatten)]
    places: DataFlags,
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// No talk on standard error
    #[arg(long)]
    quiet: bool,
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let outputs = [&self.page, &self.npz, &self.safetensors];
        if outputs.iter().all(|path| path.is_none()) {
            let wanted = "--page FILE.html, --npz FILE.npz or --safetensors FILE";
            return Err(Error::value("export", "no file to write", wanted).into());
        }
        let run = Run::open(&self.run)?;
        let mut config = run.config()?;
        self.places.find(&mut config.task)?;
        let task = config.task()?;
        let moment = Moment::from_name(&self.moment.update)?;
        let parameters = run.parameters(&task.network(), moment)?;
        let exported = Exported::new(&*task, &parameters, self.network, run.origin())?;
        // what may be refused comes first: then nothing is written
        let page = match &self.page {
            Some(path) => {
                let count = usize::from(self.examples);
                let examples = held_out_stimuli(&*task, config.seed, self.network, count);
                Some((path, exported.page(&examples)?))
            }
            None => None,
        };
        if let Some((path, page)) = &page {
            files::write(path, page.as_bytes())?;
            self.say(path, "opens in any browser, from disk too");
        }
        if let Some(path) = &self.npz {
            exported.npz(path)?;
            self.say(path, "for numpy.load");
        }
        if let Some(path) = &self.safetensors {
            exported.safetensors(path)?;
            self.say(path, "for readers of safetensors");
        }
        if self.json {
            let file = |path: &Option<PathBuf>| {
                path.as_ref().map(|path| json!({ "file": shown(path), "bytes": size(path) }))
            };
            put!(
                "{}",
                json!({
                    "schema": "hebbian.export/1",
                    "run": shown(run.folder()),
                    "network": self.network,
                    "page": file(&self.page),
                    "npz": file(&self.npz),
                    "safetensors": file(&self.safetensors),
                })
            );
        }
        Ok(0)
    }

    fn say(&self, path: &Path, what: &str) {
        if !self.quiet {
            talk(format_args!("{} ({}): {what}", path.display(), bytes(size(path))));
        }
    }
}

/// Bytes of a file just written.
fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}
