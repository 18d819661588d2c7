//! Tells the program the commit that it is built from, where there is one, and the tests which data this
//! machine has.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(has_omniglot)");
    if std::path::Path::new("../shared/data/omniglot").is_dir() {
        println!("cargo::rustc-cfg=has_omniglot");
    }
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let said = git.ok().filter(|git| git.status.success());
    if let Some(commit) = said.and_then(|git| String::from_utf8(git.stdout).ok()) {
        println!("cargo::rustc-env=HEBBIAN_COMMIT={}", commit.trim());
    }
}
