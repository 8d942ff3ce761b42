//! The pre-commit hook.

use super::git;
use crate::failure::{Code, Failure};
use crate::output;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const HOOK: &str = "\
#!/bin/sh
# Refuses a commit that has stored secrets in it, and one that could not be searched.
# Installed by `claviger scan --install-hook`; `git commit --no-verify` passes it by.
exec claviger scan --staged
";

/// Writes the hook where there is none.
///
/// # Errors
/// Another hook is there: it is left as it is.
pub(super) fn install(repository: &Path, json: bool) -> Result<u8, Failure> {
    let folder = git::hooks(repository)?;
    let path = folder.join("pre-commit");
    let failed = |e: std::io::Error| Failure::other(format!("writing {}: {e}", path.display()));
    DirBuilder::new().recursive(true).mode(0o755).create(&folder).map_err(failed)?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path);
    let done = match made {
        Ok(mut file) => file.write_all(HOOK.as_bytes()).map(|()| "installed").map_err(failed)?,
        Err(e) if e.kind() == ErrorKind::AlreadyExists && std::fs::read(&path).is_ok_and(|text| text == HOOK.as_bytes()) => "there already",
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::new(Code::Conflict, format!("{} is another hook, and was left as it is", path.display()))
                .next("call `claviger scan --staged` from it yourself"));
        }
        Err(e) => return Err(failed(e)),
    };
    match json {
        true => output::json(&serde_json::json!({ "hook": path, "done": done }))?,
        false => output::line(&format!("{}: {done}", path.display()))?,
    }
    Ok(0)
}
