//! The Debian package: program, manual, completions, units, user and folders, packed by dpkg-deb.
//!
//! It has the program with the system's C library: on a host, names of users and groups may come from a directory
//! service, which a static program cannot ask.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::archive::{Papers, files_of, gzip, name_of};
use super::source::Source;
use crate::shell;

/// A tree that becomes the package.
struct Stage<'a> {
    source: &'a Source,
    root: tempfile::TempDir,
}

impl Stage<'_> {
    fn put(&self, path: &str, mode: u32, data: &[u8]) -> anyhow::Result<()> {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        fs::write(&path, data).with_context(|| format!("writing {}", path.display()))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(mode))?)
    }

    fn zipped(&self, path: &str, data: &[u8]) -> anyhow::Result<()> {
        self.put(&format!("{path}.gz"), 0o644, &gzip(Vec::new(), |gz| Ok(std::io::Write::write_all(gz, data)?))?)
    }

    /// A file of `deploy/deb`, with its marks filled in.
    fn script(&self, name: &str, mode: u32, marks: &[(&str, &str)]) -> anyhow::Result<()> {
        let text = self.source.text(&format!("deploy/deb/{name}"))?;
        let text = marks.iter().fold(text, |text, (mark, value)| text.replace(mark, value));
        ensure!(!text.contains('@') || name == "control", "a mark of {name} is not filled in");
        self.put(&format!("DEBIAN/{name}"), mode, text.as_bytes())
    }

    /// Folders have the mode that they have on a fresh system, whatever the umask is here.
    fn open_folders(&self) -> anyhow::Result<()> {
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
            folders.extend(fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()));
        }
        Ok(())
    }
}

/// Writes `claviger_VERSION_amd64.deb`.
pub(super) fn package(source: &Source, program: &Path, papers: &Papers, out: &Path) -> anyhow::Result<()> {
    let stage = Stage { source, root: tempfile::tempdir()? };
    let data = fs::read(program)?;
    stage.put("usr/bin/claviger", 0o755, &data)?;
    let units = files_of(&source.root.join("deploy/systemd"))?;
    for unit in &units {
        stage.put(&format!("usr/lib/systemd/system/{}", name_of(unit)), 0o644, &fs::read(unit)?)?;
    }
    stage.put("usr/lib/sysusers.d/claviger-node.conf", 0o644, source.text("deploy/sysusers/claviger-node.conf")?.as_bytes())?;
    for users in files_of(&source.root.join("deploy/sysusers"))? {
        stage.put(&format!("usr/lib/sysusers.d/{}", name_of(&users)), 0o644, &fs::read(&users)?)?;
    }
    for (page, text) in &papers.manual {
        stage.zipped(&format!("usr/share/man/man1/{page}"), text)?;
    }
    for (shell, script) in &papers.completions {
        stage.put(completion(shell), 0o644, script)?;
    }
    let doc = "usr/share/doc/claviger";
    stage.put(&format!("{doc}/copyright"), 0o644, source.text("LICENSE")?.as_bytes())?;
    stage.zipped(&format!("{doc}/changelog"), source.text("CHANGELOG.md")?.as_bytes())?;
    for paper in ["README.md", "SECURITY.md"] {
        stage.put(&format!("{doc}/{paper}"), 0o644, source.text(paper)?.as_bytes())?;
    }
    let names = units.iter().map(|unit| name_of(unit)).collect::<Vec<_>>().join(" ");
    for script in ["postinst", "prerm", "postrm"] {
        stage.script(script, 0o755, &[("@UNITS@", &names)])?;
    }
    let size = (data.len() / 1024).to_string();
    stage.script("control", 0o644, &[("@VERSION@", &source.version), ("@SIZE@", &size), ("@LIBC@", &libc(program)?)])?;
    stage.open_folders()?;
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "--threads-max=1", "-Zxz", "--build"]).arg(stage.root.path());
    command.arg(out.join(format!("claviger_{}_amd64.deb", source.version)));
    command.env("SOURCE_DATE_EPOCH", source.epoch.to_string());
    shell::read(&mut command).map(drop)
}

fn completion(shell: &str) -> &'static str {
    match shell {
        "bash" => "usr/share/bash-completion/completions/claviger",
        "zsh" => "usr/share/zsh/vendor-completions/_claviger",
        _ => "usr/share/fish/vendor_completions.d/claviger.fish",
    }
}

/// The oldest C library that has all that the program asks of it.
fn libc(program: &Path) -> anyhow::Result<String> {
    let symbols = shell::read(Command::new("objdump").arg("-T").arg(program))?;
    newest_libc(&symbols).context("the program asks nothing of the C library")
}

fn newest_libc(symbols: &str) -> Option<String> {
    let versions = symbols.split(['(', ')', ' ', '\n']).filter_map(|word| word.strip_prefix("GLIBC_"));
    let parsed = versions.filter_map(|version| version.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>());
    parsed.max().map(|parts| parts.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_c_library_are_compared_as_numbers() {
        let symbols = "0000 DF *UND* 0000 (GLIBC_2.9) bind\n0000 DF *UND* 0000 (GLIBC_2.34) dlsym\n0000 (GLIBC_2.2.5) read\n";
        assert_eq!(newest_libc(symbols).as_deref(), Some("2.34"));
        assert_eq!(newest_libc("nothing"), None);
    }
}
