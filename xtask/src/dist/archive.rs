//! Archives of the programs with their papers, the same bytes each time.

use std::fs::{self, File};
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::build::Program;
use super::source::Source;
use crate::shell;

/// A file in an archive.
pub(super) struct Entry {
    /// Where, without a leading slash; a folder's ends with one.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) data: Vec<u8>,
}

impl Entry {
    pub(super) fn file(path: impl Into<String>, mode: u32, data: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode, data: data.into() }
    }

    pub(super) fn folder(path: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o755, data: Vec::new() }
    }
}

/// What comes with every program: manual pages, completions, licence, examples.
pub(super) struct Papers {
    /// File name and text, by name.
    pub(super) manual: Vec<(String, Vec<u8>)>,
    /// Shell and script.
    pub(super) completions: Vec<(&'static str, Vec<u8>)>,
}

impl Papers {
    /// Those of a program, which is run for them.
    pub(super) fn of(source: &Source, program: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ask = |arguments: &[&str]| shell::read(Command::new(program).args(arguments).current_dir(&source.root));
        ask(&["man", "--dir", &folder.path().display().to_string()])?;
        let pages = files_of(folder.path())?.into_iter().map(|path| Ok((name_of(&path), fs::read(&path)?)));
        let manual = pages.collect::<anyhow::Result<_>>()?;
        let shells = ["bash", "zsh", "fish"].into_iter();
        let completions = shells.map(|name| Ok((name, ask(&["completions", name])?.into_bytes())));
        Ok(Self { manual, completions: completions.collect::<anyhow::Result<_>>()? })
    }
}

/// Writes `claviger-VERSION-FLAVOUR.tar.gz`.
pub(super) fn tarball(source: &Source, program: &Program, papers: &Papers, out: &Path) -> anyhow::Result<()> {
    let name = format!("claviger-{}-{}", source.version, program.flavour.name);
    let mut entries = vec![Entry::file(format!("{name}/claviger"), 0o755, fs::read(&program.path)?)];
    for text in ["LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md"] {
        entries.push(Entry::file(format!("{name}/{text}"), 0o644, source.text(text)?));
    }
    for (page, text) in &papers.manual {
        entries.push(Entry::file(format!("{name}/man/{page}"), 0o644, text.clone()));
    }
    for (shell, script) in &papers.completions {
        entries.push(Entry::file(format!("{name}/completions/claviger.{shell}"), 0o644, script.clone()));
    }
    let file = File::create(out.join(format!("{name}.tar.gz")))?;
    gzip(file, |gz| tar(entries, source.epoch, gz))?.sync_all()?;
    Ok(())
}

/// Writes entries in the order of their paths, all of user 0 and one time.
pub(super) fn tar(mut entries: Vec<Entry>, epoch: u64, to: impl Write) -> anyhow::Result<()> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut builder = Builder::new(to);
    for Entry { path, mode, data } in &entries {
        let mut header = Header::new_ustar();
        header.set_entry_type(if path.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
        header.set_size(data.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(epoch);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, path, data.as_slice()).with_context(|| format!("adding {path}"))?;
    }
    builder.finish()?;
    Ok(())
}

/// Compresses what `write` writes, without a name or time in the header.
pub(super) fn gzip<W: Write>(to: W, write: impl FnOnce(&mut GzEncoder<W>) -> anyhow::Result<()>) -> anyhow::Result<W> {
    let mut gz = GzEncoder::new(to, Compression::best());
    write(&mut gz)?;
    Ok(gz.finish()?)
}

/// The files of a folder in the order of their names.
pub(super) fn files_of(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

/// A path's last part.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether two files have the same bytes.
pub(super) fn same(a: &Path, b: &Path) -> anyhow::Result<bool> {
    let read = |path: &Path| -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path).with_context(|| format!("opening {}", path.display()))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    Ok(read(a)? == read(b)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_archive_is_the_same_whatever_the_order_of_its_entries() {
        let entries = |turned: bool| {
            let mut all = vec![Entry::folder("a/"), Entry::file("a/one", 0o644, "1"), Entry::file("b", 0o755, "2")];
            if turned {
                all.reverse();
            }
            all
        };
        let packed = |turned| gzip(Vec::new(), |gz| tar(entries(turned), 1_700_000_000, gz)).unwrap();
        assert_eq!(packed(false), packed(true));
        assert_ne!(packed(false), gzip(Vec::new(), |gz| tar(entries(false), 1_700_000_001, gz)).unwrap());
    }
}
