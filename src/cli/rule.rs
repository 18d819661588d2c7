//! `hebbian rule`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use crate::cli::shown;
use crate::error::{Error, Result};
use crate::files;
use crate::model::{self, RuleText};
use crate::report::rules_picture;
use crate::rule::{Class, Per, Program, TEXTS};
use crate::verify;

/// Plasticity rules: those that come with the program, and what one of your own means
#[derive(clap::Args)]
pub(super) struct Rule {
    #[command(subcommand)]
    action: Action,
    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// The rules that come with the program
    List,
    /// The text of one of them
    Show {
        /// Its name
        name: String,
    },
    /// What a rule means: its equations, class, derivatives, and whether the derived gradient is right
    ///
    /// Exit code 1 where the gradient is not that of finite differences on a small random network.
    Check {
        /// A file with a rule's text, or the name of one that comes with the program
        rule: PathBuf,
    },
    /// A picture of what rules do to H for a pair of spikes, in SVG
    Draw {
        /// Files with a rule's text, or names of those that come with the program; all of these by default
        rules: Vec<PathBuf>,
        /// Where to write it
        #[arg(long, value_name = "FILE", default_value = "rules.svg")]
        out: PathBuf,
    },
}

impl Rule {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        match &self.action {
            Action::List => self.list(),
            Action::Show { name } => {
                put!("{}", Program::built_in(name)?.text().trim_end());
                Ok(0)
            }
            Action::Check { rule } => self.check(rule),
            Action::Draw { rules, out } => self.draw(rules, out),
        }
    }

    fn list(&self) -> anyhow::Result<u8> {
        let mut all = Vec::new();
        for (name, text) in TEXTS {
            let program = Program::parse(text)?;
            if self.json {
                all.push(json!({
                    "name": name,
                    "class": program.class().name(),
                    "source": program.source(),
                    "equations": program.equations(),
                }));
            } else {
                put!("{name:12} {:15} {}", program.class().name(), program.source());
                program.equations().iter().for_each(|equation| put!("             {equation}"));
            }
        }
        if self.json {
            put!("{}", json!({ "schema": "hebbian.rules/1", "rules": all }));
        }
        Ok(0)
    }

    fn draw(&self, rules: &[PathBuf], out: &Path) -> anyhow::Result<u8> {
        let all: Vec<PathBuf> = TEXTS.iter().map(|(name, _)| name.into()).collect();
        let rules = if rules.is_empty() { &all } else { rules };
        let programs = rules.iter().map(read).collect::<Result<Vec<_>>>()?;
        files::write(out, rules_picture(&programs).as_bytes())?;
        if self.json {
            put!("{}", json!({ "schema": "hebbian.rule-picture/1", "file": out }));
        } else {
            put!("{}", shown(out));
        }
        Ok(0)
    }

    fn check(&self, path: &PathBuf) -> anyhow::Result<u8> {
        let program = read(path)?;
        let class = program.class();
        let off = verify::finite_differences(&RuleText::new(program.clone(), true))?;
        let right = off < verify::TOLERANCE;
        let parameters: Vec<_> = program
            .parameters()
            .iter()
            .map(|parameter| (parameter.name.clone(), per(&parameter.per), parameter.init))
            .collect();
        if self.json {
            let parameters: Vec<_> = parameters
                .iter()
                .map(|(name, per, init)| json!({ "name": name, "per": per, "init": init }))
                .collect();
            put!(
                "{}",
                json!({
                    "schema": "hebbian.rule/1",
                    "name": program.name(),
                    "source": program.source(),
                    "class": class.name(),
                    "why": why(&class),
                    "equations": program.equations(),
                    "derivatives": program.derivatives(),
                    "parameters": parameters,
                    "finite_differences": super::number(off),
                    "right": right,
                })
            );
            return Ok(u8::from(!right));
        }
        put!("{}: {}", program.name(), program.source());
        program.equations().iter().for_each(|equation| put!("  {equation}"));
        for (name, per, init) in parameters {
            put!("  {name}: trained, one a {}, starts at {init}", per.join(" or a "));
        }
        put!("class  {}: {}", class.name(), why(&class));
        let own = model::Rule::from_name(program.name()).is_ok() && is_built_in(&program);
        put!("plan   {}", if own { OWN_KERNELS } else { "general, on the CPU and on GPUs" });
        put!("derivatives");
        program.derivatives().iter().for_each(|line| put!("  {line}"));
        let verdict = if right { "right" } else { "WRONG" };
        put!(
            "gradient {verdict}: {off:.1e} of its norm off finite differences, at most {:.0e}",
            verify::TOLERANCE
        );
        Ok(u8::from(!right))
    }
}

/// The plans of rules that have kernels of their own.
const OWN_KERNELS: &str = "lazy on the CPU (stepped with a clip); resident or streamed on GPUs";

/// Whether a text is that of the rule that comes with the program by its name.
fn is_built_in(program: &Program) -> bool {
    TEXTS.iter().any(|(name, text)| *name == program.name() && *text == program.text())
}

/// A rule from a file, or by its name.
fn read(path: &PathBuf) -> Result<Program> {
    let name = path.to_str().unwrap_or_default();
    if !path.is_file() && TEXTS.iter().any(|(known, _)| *known == name) {
        return Program::built_in(name);
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
    Program::parse(&text)
}

fn per(per: &[Per]) -> Vec<&'static str> {
    per.iter()
        .map(|per| match per {
            Per::Network => "network",
            Per::Neuron => "neuron",
            Per::Pre => "pre-synaptic neuron",
            Per::Connection => "connection",
        })
        .collect()
}

fn why(class: &Class) -> String {
    match class {
        Class::Affine => {
            "traces become sums of traces, x, pre variables and 1, with coefficients of the \
             post-synaptic neuron"
                .into()
        }
        Class::Clipped => "such sums, clipped between two numbers".into(),
        Class::General(what) => format!("for {what}"),
    }
}
