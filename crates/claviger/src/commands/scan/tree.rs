//! The files of a working tree.

use super::search::{Hit, Place, Searcher};
use crate::failure::Failure;
use ignore::WalkBuilder;
use rustix::fs::{Mode, OFlags, open};
use std::fs::File;
use std::io;
use std::path::Path;

/// Searches every regular file below `root`, in order of names. Links are not followed, and what cannot be read is noted.
pub(super) fn walk(
    root: &Path,
    use_ignore_files: bool,
    searcher: &mut Searcher<'_>,
    found: &mut impl FnMut(&Place, Vec<Hit>),
) -> Result<(), Failure> {
    if !root.is_dir() {
        return named(root, searcher, found);
    }
    let mut builder = WalkBuilder::new(root);
    // Files that begin with a dot are where secrets are; git's own folder is searched with --git.
    builder.hidden(false).standard_filters(false).follow_links(false).sort_by_file_name(std::ffi::OsStr::cmp);
    builder.git_ignore(use_ignore_files).git_exclude(use_ignore_files).git_global(use_ignore_files).parents(use_ignore_files);
    builder.filter_entry(|entry| entry.file_name() != ".git");
    for entry in builder.build() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                searcher.unread.push((root.display().to_string(), e.to_string()));
                continue;
            }
        };
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        let place = Place { path: path.strip_prefix("./").unwrap_or(path).display().to_string(), commit: None };
        match open_file(path).and_then(|file| searcher.search(file)) {
            Ok(hits) => found(&place, hits),
            Err(e) => searcher.unread.push((place.path, e.to_string())),
        }
    }
    Ok(())
}

/// The one file that was named, also by a link.
fn named(path: &Path, searcher: &mut Searcher<'_>, found: &mut impl FnMut(&Place, Vec<Hit>)) -> Result<(), Failure> {
    let shown = path.display();
    let file = path.canonicalize().and_then(|real| open_file(&real));
    let hits = file.and_then(|file| searcher.search(file)).map_err(|e| Failure::usage(format!("{shown} cannot be searched: {e}")))?;
    found(&Place { path: shown.to_string(), commit: None }, hits);
    Ok(())
}

/// Never a link or a pipe that came into the file's place meanwhile.
fn open_file(path: &Path) -> io::Result<File> {
    let file = File::from(open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}
