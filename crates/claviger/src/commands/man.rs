//! `claviger man`: the manual pages, made of the same text as `--help`.

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man as Page;
use std::path::{Path, PathBuf};

/// Options of `man`.
#[derive(Args)]
pub(crate) struct Man {
    /// The page of this command, such as `acl grant`; of `claviger` itself unless given.
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,
    /// Write every page into this folder, as `claviger.1`, `claviger-get.1`, and so on.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        match self.dir {
            Some(dir) => write_all(&all(), &dir, json)?,
            None => print(&all(), &self.command)?,
        }
        Ok(0)
    }
}

/// All commands, each under the name of its page.
fn all() -> Vec<Command> {
    let mut root = Cli::command();
    // Gives every command its full name.
    root.build();
    let mut all = vec![root];
    let mut next = 0;
    while let Some(command) = all.get(next) {
        let below: Vec<_> = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help").cloned().collect();
        all.extend(below);
        next += 1;
    }
    all
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn render(command: &Command) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    // No date: the same program has the same pages, whenever they are made.
    let page = Page::new(command.clone()).manual("Claviger").date("");
    page.render(&mut text).map_err(|e| Failure::other(format!("making the page: {e}")))?;
    Ok(text)
}

fn print(pages: &[Command], command: &[String]) -> Result<(), Failure> {
    let wanted = std::iter::once("claviger").chain(command.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    match pages.iter().find(|page| name(page) == wanted) {
        Some(page) => output::raw(&render(page)?),
        None => Err(Failure::usage(format!("there is no command `{}`", command.join(" "))).next("`claviger --help` lists them")),
    }
}

fn write_all(pages: &[Command], dir: &Path, json: bool) -> Result<(), Failure> {
    let failed = |path: &Path, e: std::io::Error| Failure::other(format!("writing {}: {e}", path.display()));
    std::fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
    for page in pages {
        let path = dir.join(format!("{}.1", name(page)));
        std::fs::write(&path, render(page)?).map_err(|e| failed(&path, e))?;
    }
    match json {
        true => output::json(&pages.iter().map(name).collect::<Vec<_>>()),
        false => output::line(&format!("wrote {} pages into {}", pages.len(), dir.display())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_command_has_a_page_that_names_it() {
        let pages = all();
        let names: Vec<_> = pages.iter().map(name).collect();
        for name in ["claviger", "claviger-get", "claviger-acl", "claviger-acl-grant", "claviger-audit-verify"] {
            assert!(names.contains(&name), "{name} of {names:?}");
        }
        for page in &pages {
            let text = String::from_utf8(render(page).unwrap()).unwrap();
            assert!(text.contains(".TH") && text.contains(&name(page).replace('-', "\\-")), "{}: {text}", name(page));
        }
    }
}
