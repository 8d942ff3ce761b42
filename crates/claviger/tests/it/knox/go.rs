//! Both generations of Knox's Go client, imitated on the wire by the program in `tests/go/knoxclient`.

use super::server;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The client, built once; `None` where there is no Go.
pub(crate) static CLIENT: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    if Command::new("go").arg("version").output().is_err() {
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join("knoxclient");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go/knoxclient"))
        // Nothing is fetched, and the cache is ours, so that it works without a home.
        .envs([("GOPROXY", "off"), ("GOFLAGS", "-mod=readonly"), ("GOTOOLCHAIN", "local"), ("CGO_ENABLED", "0")])
        .env("GOCACHE", folder.join("go-cache"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
});

/// The client's retries are tried with what the reference answers code 1 to.
fn is_content(generation: &str) {
    let Some(client) = CLIENT.as_deref() else {
        eprintln!("skipped: there is no `go` on the path, so Knox's Go client of {generation} was not tried");
        return;
    };
    let server = server("[knox]\nstrictness = \"reference\"\n");
    let output = Command::new(client)
        .args(["-generation", generation, "-host", &server.address().to_string()])
        .args(["-certificate", server.env("CLAVIGER_MACHINE_CERT"), "-key", server.env("CLAVIGER_MACHINE_KEY")])
        .envs([("KNOX_USER_AUTH", "0ualice-token"), ("KNOX_STRANGER_AUTH", "0ubob-token")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("the client of {generation} is content\n"));
}

#[test]
fn the_go_client_of_2025_is_content() {
    is_content("2025");
}

#[test]
fn the_go_client_of_2026_is_content() {
    is_content("2026");
}
