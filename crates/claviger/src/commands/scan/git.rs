//! What git keeps: the index, and every object of a history. Git itself reads the objects (`git cat-file --batch`), packed or not.
//!
//! No filter, text conversion, hook or external program of the repository's configuration is run.

use super::search::{Hit, Place, Searcher};
use crate::failure::Failure;
use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// What a commit's or tag's message is called.
const MESSAGE: &str = "(message)";
/// What git prints of a fault, at most.
const MOST_SAID: usize = 300;

type OnFound<'f> = &'f mut dyn FnMut(&Place, Vec<Hit>);

/// Searches what is about to be committed.
pub(super) fn staged(path: &Path, searcher: &mut Searcher<'_>, found: OnFound<'_>) -> Result<(), Failure> {
    let listed =
        output(git(path).args(["diff", "--cached", "--raw", "-z", "--no-abbrev", "--no-renames", "--no-ext-diff", "--no-textconv"]))?;
    let mut objects = Objects::default();
    let mut fields = listed.split(|b| *b == 0).filter(|field| !field.is_empty());
    while let (Some(change), Some(name)) = (fields.next(), fields.next()) {
        objects.add_change(change, name, None);
    }
    read_objects(path, &objects, searcher, found)
}

/// Searches every version of every file, and every message.
pub(super) fn history(path: &Path, searcher: &mut Searcher<'_>, found: OnFound<'_>) -> Result<(), Failure> {
    let mut objects = Objects::default();
    // Oldest first, so that the commit that is named is the one that brought it; merges against each parent.
    let mut command = git(path);
    command.args(["log", "--all", "--reverse", "--topo-order", "-m", "--root", "--raw", "-z", "--no-abbrev", "--no-renames"]);
    command.args(["--no-ext-diff", "--no-textconv", "--no-show-signature", "--no-notes", "--format=%x01%H"]);
    let mut log = Running::start(&mut command)?;
    let mut commit = None;
    let mut fields = BufReader::new(log.stdout()?).split(0);
    while let Some(field) = fields.next() {
        let field = field.map_err(|e| reading(&e))?;
        let text = trimmed(&field);
        if let Some(id) = text.strip_prefix(b"\x01") {
            let id = String::from_utf8_lossy(id).into_owned();
            objects.add(id.clone(), Place { path: MESSAGE.to_owned(), commit: Some(id.clone()) });
            commit = Some(id);
        } else if text.starts_with(b":") {
            let Some(name) = fields.next() else { break };
            objects.add_change(text, &name.map_err(|e| reading(&e))?, commit.as_deref());
        }
    }
    log.finish()?;
    let tags = output(git(path).args(["for-each-ref", "--format=%(objectname) %(objecttype) %(refname)", "refs"]))?;
    for line in String::from_utf8_lossy(&tags).lines() {
        let mut words = line.splitn(3, ' ');
        if let (Some(id), Some("tag" | "blob"), Some(name)) = (words.next(), words.next(), words.next()) {
            objects.add(id.to_owned(), Place { path: name.to_owned(), commit: None });
        }
    }
    read_objects(path, &objects, searcher, found)
}

fn trimmed(field: &[u8]) -> &[u8] {
    // Between a commit and its first change git writes a line break.
    field.trim_ascii_start()
}

/// Objects to read, each once, in the order in which they turned up.
#[derive(Default)]
struct Objects {
    order: Vec<String>,
    places: HashMap<String, Place>,
    seen: HashSet<String>,
}

impl Objects {
    fn add(&mut self, id: String, place: Place) {
        if self.seen.insert(id.clone()) {
            self.places.insert(id.clone(), place);
            self.order.push(id);
        }
    }

    /// One line of `--raw`: `:MODE MODE OLD NEW STATUS`. What was removed was read when it was added; a submodule's commit is not here.
    fn add_change(&mut self, change: &[u8], name: &[u8], commit: Option<&str>) {
        let text = String::from_utf8_lossy(trimmed(change)).into_owned();
        let words: Vec<&str> = text.trim_start_matches(':').split(' ').collect();
        let [_, mode, _, new, _] = words[..] else { return };
        let is_there = new.bytes().any(|b| b != b'0') && mode != "160000";
        if is_there {
            let path = String::from_utf8_lossy(name).into_owned();
            self.add(new.to_owned(), Place { path, commit: commit.map(str::to_owned) });
        }
    }
}

/// Has git read the objects, and searches each as it comes.
fn read_objects(path: &Path, objects: &Objects, searcher: &mut Searcher<'_>, found: OnFound<'_>) -> Result<(), Failure> {
    if objects.order.is_empty() {
        return Ok(());
    }
    let mut batch = Running::start(git(path).args(["cat-file", "--batch", "--buffer"]).stdin(Stdio::piped()))?;
    let mut ask = batch.child.stdin.take().ok_or_else(|| Failure::other("git takes no input"))?;
    let mut answers = BufReader::with_capacity(1 << 20, batch.stdout()?);
    std::thread::scope(|scope| {
        // By itself, since git answers before it has heard all.
        scope.spawn(move || objects.order.iter().try_for_each(|id| writeln!(ask, "{id}")));
        objects.order.iter().try_for_each(|id| {
            let place = objects.places.get(id).cloned().unwrap_or_default();
            let Some(size) = next_object(&mut answers, id)? else {
                searcher.unread.push((place.path, format!("git does not have object {id} (a shallow or partial clone?)")));
                return Ok(());
            };
            let mut content = answers.by_ref().take(size);
            let hits = searcher.search(&mut content).map_err(|e| reading(&e))?;
            let is_whole = content.limit() == 0 && answers.read_exact(&mut [0]).is_ok();
            if !is_whole {
                return Err(Failure::other(format!("git ended within object {id}")));
            }
            found(&place, hits);
            Ok(())
        })
    })?;
    drop(answers);
    batch.finish()
}

/// The size of the next object; nothing where git does not have it.
fn next_object(answers: &mut impl BufRead, id: &str) -> Result<Option<u64>, Failure> {
    let mut line = String::new();
    answers.read_line(&mut line).map_err(|e| reading(&e))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [_, "missing"] => Ok(None),
        [found, _, size] if found == id => size.parse().map(Some).map_err(|_| Failure::other("git's answer is malformed")),
        _ => Err(Failure::other("git ended early, or answered something else")),
    }
}

fn reading(error: &io::Error) -> Failure {
    Failure::other(format!("reading from git: {error}"))
}

/// Git in the repository that `path` is in, with nothing of the repository's that could run something.
fn git(path: &Path) -> Command {
    let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    let mut command = Command::new("git");
    command.arg("-C").arg(if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    command.args([
        "--no-pager",
        "--no-replace-objects",
        "-c",
        "core.fsmonitor=false",
        "-c",
        "core.quotePath=false",
        "-c",
        "log.showRoot=true",
        // Otherwise they say what is left out: what a merge brought by itself, and what is beside the folder.
        "-c",
        "log.diffMerges=separate",
        "-c",
        "diff.relative=false",
    ]);
    command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0").env("GIT_NO_LAZY_FETCH", "1").env("LC_ALL", "C");
    // A git that does not know GIT_NO_LAZY_FETCH fetches by nothing, and no remote of the repository names a program to run.
    command.env("GIT_ALLOW_PROTOCOL", "none").env("GIT_GRAFT_FILE", "/dev/null");
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Standard output of a git that succeeds.
pub(super) fn output(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let output = command.stdout(Stdio::piped()).output().map_err(|e| starting(&e))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(said(&output.stderr)),
    }
}

/// Where the repository's hooks are.
pub(super) fn hooks(path: &Path) -> Result<std::path::PathBuf, Failure> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut printed = output(git(path).args(["rev-parse", "--path-format=absolute", "--git-path", "hooks"]))?;
    if printed.ends_with(b"\n") {
        printed.pop();
    }
    Ok(std::ffi::OsString::from_vec(printed).into())
}

fn starting(error: &io::Error) -> Failure {
    Failure::other(format!("cannot start git: {error}")).next("install git, or search files without --git")
}

fn said(stderr: &[u8]) -> Failure {
    let text: String = String::from_utf8_lossy(stderr).trim().chars().take(MOST_SAID).collect();
    Failure::usage(format!("git: {text}"))
}

/// A git whose output is read as it comes; what it says of itself is read beside that.
struct Running {
    child: Child,
    stderr: Option<std::thread::JoinHandle<Vec<u8>>>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self, Failure> {
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| starting(&e))?;
        let pipe = child.stderr.take();
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            // What cannot be read cannot be shown; the exit status says that something is wrong.
            let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut text));
            text
        });
        Ok(Self { child, stderr: Some(stderr) })
    }

    fn stdout(&mut self) -> Result<ChildStdout, Failure> {
        self.child.stdout.take().ok_or_else(|| Failure::other("git has no output"))
    }

    fn finish(mut self) -> Result<(), Failure> {
        let status = self.child.wait().map_err(|e| reading(&e))?;
        let text = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if status.success() { Ok(()) } else { Err(said(&text)) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that is not needed any more must not stay; one that was waited for is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
