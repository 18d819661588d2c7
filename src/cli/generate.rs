//! `hebbian completions` and `hebbian man`: generated from the commands themselves.

use std::io::Write;
use std::path::PathBuf;

use clap::CommandFactory;

use crate::cli::Arguments;

/// Prints completions for a shell
#[derive(clap::Args)]
pub(super) struct Completions {
    /// bash, elvish, fish, powershell or zsh
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "hebbian", &mut text);
        std::io::stdout().write_all(&text)?;
        Ok(0)
    }
}

/// Writes the man pages, one for each command
#[derive(clap::Args)]
pub(super) struct Man {
    /// A folder, which is made
    out: PathBuf,
}

impl Man {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let io = |e| crate::error::Error::io(&self.out, "create", e);
        std::fs::create_dir_all(&self.out).map_err(io)?;
        clap_mangen::generate_to(Arguments::command(), &self.out).map_err(io)?;
        put!("{}", self.out.display());
        Ok(0)
    }
}
