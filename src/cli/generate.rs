//! `hebbian completions` and `hebbian man`: generated from the commands themselves.

use std::io::Write;
use std::path::PathBuf;

use clap::CommandFactory;

use crate::cli::Arguments;
use crate::train::reference;

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

/// Prints the reference of all settings, as Markdown
#[derive(clap::Args)]
pub(super) struct Settings {}

impl Settings {
    #[expect(clippy::unused_self, reason = "commands are called alike")]
    pub(super) fn run(self) -> anyhow::Result<u8> {
        put!("{}", reference().trim_end());
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
        // the settings as a page of their own, in the table's own words
        let mut page =
            String::from(".TH hebbian-settings 5\n.SH NAME\nhebbian-settings\n.SH SETTINGS\n");
        for row in reference().lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let plain = |text: &str| text.replace('`', "").replace('\\', "\\e").replace('-', "\\-");
            page += &format!(
                ".TP\n\\fB{}\\fR\n{}. Default: {} (patterns), {} (images), {} (custom).\n",
                plain(cells[0]),
                plain(cells[1]),
                plain(cells[2]),
                plain(cells[3]),
                plain(cells[4]),
            );
        }
        std::fs::write(self.out.join("hebbian-settings.5"), page).map_err(io)?;
        put!("{}", self.out.display());
        Ok(0)
    }
}
