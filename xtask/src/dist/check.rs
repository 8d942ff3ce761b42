//! Builds everything twice in different folders, compares, and tries the results with programs that others wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::archive::{files_of, name_of, same};
use super::source::Source;
use super::{make, sign};
use crate::shell;

/// Makes, makes again, compares, tries.
pub(super) fn run(out: &Path, sign_key: Option<&Path>) -> anyhow::Result<()> {
    let source = Source::here()?;
    let folder = tempfile::Builder::new().prefix("claviger-dist-").tempdir()?;
    let key = match sign_key {
        Some(key) => key.to_owned(),
        None => throw_away_key(folder.path())?,
    };
    // First, so that somebody who goes on working meanwhile does not make the two differ.
    let elsewhere = source.copy(&folder.path().join("another/place/for/the/sources"))?;
    make(&source, out, Some(&key))?;
    let second = folder.path().join("second");
    make(&elsewhere, &second, Some(&key))?;
    compare(out, &second)?;
    let public = shell::read(Command::new("ssh-keygen").args(["-y", "-f"]).arg(&key))?;
    sign::verify(out, &public)?;
    try_static(&source, out, folder.path())?;
    try_package(&source, out, folder.path())?;
    try_image(&source, out, folder.path())?;
    println!("\ntwo builds in different folders gave the same bytes; archives, package, image and signature work");
    Ok(())
}

/// A key that signs this check's results only.
fn throw_away_key(folder: &Path) -> anyhow::Result<PathBuf> {
    let key = folder.join("key");
    shell::run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "check", "-f"]).arg(&key))?;
    Ok(key)
}

/// # Errors
/// A file is in one folder only, or differs.
fn compare(first: &Path, second: &Path) -> anyhow::Result<()> {
    let names = |folder: &Path| Ok::<_, anyhow::Error>(files_of(folder)?.iter().map(|path| name_of(path)).collect::<Vec<_>>());
    let list = names(first)?;
    ensure!(list == names(second)?, "the two builds have different files");
    for name in list {
        ensure!(same(&first.join(&name), &second.join(&name))?, "{name} differs between two builds of the same sources");
    }
    Ok(())
}

/// The static programs start, and ask for no library.
fn try_static(source: &Source, out: &Path, folder: &Path) -> anyhow::Result<()> {
    for (flavour, has_server) in [("x86_64-linux-static", true), ("cli-x86_64-linux-static", false)] {
        let name = format!("claviger-{}-{flavour}", source.version);
        shell::run(Command::new("tar").args(["-xzf"]).arg(out.join(format!("{name}.tar.gz"))).arg("-C").arg(folder))?;
        let program = folder.join(&name).join("claviger");
        says_version(&mut Command::new(&program), source)?;
        let headers = shell::read(Command::new("objdump").arg("-p").arg(&program))?;
        ensure!(!headers.contains("NEEDED"), "{flavour} asks for a shared library");
        let help = shell::read(Command::new(&program).arg("--help"))?;
        ensure!(help.contains("\n  server ") == has_server, "{flavour}: whether it has `server` is wrong");
        ensure!(folder.join(&name).join("man/claviger-get.1").is_file(), "{name} has no manual page of `get`");
    }
    Ok(())
}

fn says_version(command: &mut Command, source: &Source) -> anyhow::Result<()> {
    let said = shell::read(command.arg("--version"))?;
    ensure!(said.trim() == format!("claviger {}", source.version), "`{}` says {said}", shell::show(command));
    Ok(())
}

/// The package has what it says, with the right modes, and its program starts.
fn try_package(source: &Source, out: &Path, folder: &Path) -> anyhow::Result<()> {
    let package = out.join(format!("claviger_{}_amd64.deb", source.version));
    let list = shell::read(Command::new("dpkg-deb").arg("--contents").arg(&package))?;
    for (mode, path) in [
        ("-rwxr-xr-x root/root", "./usr/bin/claviger"),
        ("-rw-r--r-- root/root", "./usr/lib/systemd/system/claviger.service"),
        ("-rw-r--r-- root/root", "./usr/share/man/man1/claviger-get.1.gz"),
        ("drwxr-xr-x root/root", "./usr/share/doc/claviger/"),
    ] {
        ensure!(list.lines().any(|line| line.starts_with(mode) && line.ends_with(path)), "the package has no {mode} {path}:\n{list}");
    }
    let control = shell::read(Command::new("dpkg-deb").arg("--field").arg(&package))?;
    ensure!(control.contains(&format!("Version: {}", source.version)), "{control}");
    let unpacked = folder.join("package");
    shell::run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&unpacked))?;
    says_version(&mut Command::new(unpacked.join("usr/bin/claviger")), source)?;
    for script in ["postinst", "prerm", "postrm"] {
        let text = shell::read(Command::new("dpkg-deb").arg("--info").arg(&package).arg(script))?;
        let path = folder.join(script);
        fs::write(&path, text)?;
        shell::run(Command::new("sh").arg("-n").arg(&path)).with_context(|| format!("the syntax of {script}"))?;
    }
    Ok(())
}

/// Other programs read the image, and the program in it starts with nothing else around it.
fn try_image(source: &Source, out: &Path, folder: &Path) -> anyhow::Result<()> {
    let archive = out.join(format!("claviger-{}-oci.tar", source.version));
    let image = format!("oci-archive:{}:{}", archive.display(), source.version);
    let said = shell::read(Command::new("skopeo").args(["inspect", "--config", &image]))?;
    let config: serde_json::Value = serde_json::from_str(&said)?;
    ensure!(config["config"]["Entrypoint"][0] == "/usr/bin/claviger" && config["config"]["User"] == "65532:65532", "{said}");
    let layout = folder.join("layout");
    let policy = ["--insecure-policy", "copy", "--quiet", &image];
    shell::run(Command::new("skopeo").args(policy).arg(format!("oci:{}:it", layout.display())))?;
    let bundle = folder.join("bundle");
    shell::run(Command::new("umoci").args(["unpack", "--rootless", "--image"]).arg(format!("{}:it", layout.display())).arg(&bundle))?;
    says_version(Command::new("chroot").args(["--userspec=65532:65532"]).arg(bundle.join("rootfs")).arg("/usr/bin/claviger"), source)
}
