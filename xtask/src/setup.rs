//! What the other commands need from the machine beyond Rust: a table, and how to get it.
//!
//! As root it installs; otherwise it says the one line to run. It never changes anything that is
//! already there.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::bail;

use crate::{deny, shell};

/// A Debian package and the program that shows that it, or something as good, is installed.
struct Package {
    name: &'static str,
    program: &'static str,
    /// What needs it.
    why: &'static str,
}

/// What building needs.
const TO_BUILD: &[Package] = &[
    Package { name: "gcc", program: "cc", why: "building aws-lc-rs and SQLite, and linking" },
    Package { name: "libc6-dev", program: "cc", why: "the C library's headers for the same" },
];

/// What tests need besides. Extend this table when a test needs a program.
const TO_TEST: &[Package] = &[
    Package { name: "golang-go", program: "go", why: "tests that talk to the server as Knox's Go client does" },
    Package { name: "openssl", program: "openssl", why: "tests that hold generated keys against it" },
    Package { name: "openssh-client", program: "ssh-keygen", why: "the same, for OpenSSH's form" },
    Package { name: "age", program: "age", why: "tests that exports are read and written by age itself" },
    Package { name: "git", program: "git", why: "tests that search repositories" },
    Package { name: "nodejs", program: "node", why: "the test that runs the page which opens shares" },
    Package { name: "procps", program: "kill", why: "tests that end or signal a process" },
    Package { name: "e2fsprogs", program: "chattr", why: "tests of files that even root cannot write" },
    Package { name: "swtpm", program: "swtpm", why: "tests of a cache whose key a TPM seals" },
    Package { name: "mount", program: "mount", why: "tests of a full disk" },
    Package { name: "nodejs", program: "node", why: "the OpenID provider that people log in at in tests" },
    Package { name: "npm", program: "npm", why: "installing it" },
    Package { name: "python3", program: "python3", why: "tests that ask Google's Tink, which they install from PyPI" },
    Package { name: "python3-venv", program: "python3", why: "the folder that Tink is installed in" },
];

/// What giving out needs besides building.
const FOR_DIST: &[Package] = &[
    Package { name: "musl-tools", program: "musl-gcc", why: "C code of the static program" },
    Package { name: "dpkg", program: "dpkg-deb", why: "the Debian package" },
    Package { name: "binutils", program: "objdump", why: "finding out which C library the program needs" },
    Package { name: "openssh-client", program: "ssh-keygen", why: "signing and verifying checksums" },
    Package { name: "skopeo", program: "skopeo", why: "reading the container image back" },
    Package { name: "umoci", program: "umoci", why: "unpacking the container image" },
    Package { name: "git", program: "git", why: "the time of the newest commit" },
];

/// What a clean machine to follow guides on needs.
const FOR_MACHINES: &[Package] = &[
    Package { name: "debootstrap", program: "debootstrap", why: "making a clean Debian" },
    Package { name: "systemd-container", program: "systemd-nspawn", why: "booting it" },
    Package { name: "util-linux", program: "nsenter", why: "working in it" },
];

/// Rust's target of static programs.
const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";

/// Installs all that is missing: Debian packages, then the pinned cargo-deny.
pub(crate) fn run() -> anyhow::Result<()> {
    packages_to_test()?;
    deny::install()?;
    println!("all that is needed is there");
    Ok(())
}

/// Installs the Debian packages that building needs.
///
/// # Errors
/// As [`packages_to_test`].
pub(crate) fn packages_to_build() -> anyhow::Result<()> {
    install(&missing(TO_BUILD, shell::has_program))
}

/// Installs the Debian packages that building and tests need.
///
/// # Errors
/// Not root; the message has the line to run. Or apt-get fails.
pub(crate) fn packages_to_test() -> anyhow::Result<()> {
    let mut all = missing(TO_BUILD, shell::has_program);
    all.extend(missing(TO_TEST, shell::has_program));
    install(&all)?;
    provider_library()
}

/// Where the committed list of the provider's packages is.
pub(crate) const PROVIDER: &str = "crates/claviger/tests/data/oidc-provider";

/// Installs npm's `oidc-provider` into the target folder, as the committed lock file has it, unless it is there.
///
/// # Errors
/// npm fails.
pub(crate) fn provider_library() -> anyhow::Result<()> {
    let (from, to) = (shell::root().join(PROVIDER), shell::root().join("target/oidc-provider"));
    let wanted = std::fs::read(from.join("package-lock.json"))?;
    let installed = to.join("installed.json");
    if std::fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    std::fs::create_dir_all(&to)?;
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(from.join(file), to.join(file))?;
    }
    // No scripts of packages are run: what is needed of them is plain JavaScript.
    let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    shell::run(Command::new("npm").args(arguments).current_dir(&to))?;
    // Last, since it says that the rest is there.
    Ok(std::fs::write(installed, wanted)?)
}

/// Installs what building and giving out need: Debian packages, and Rust's library for static programs.
///
/// # Errors
/// As [`packages_to_test`]; or the library is not there and there is no `rustup`.
pub(crate) fn packages_for_dist() -> anyhow::Result<()> {
    let mut all = missing(TO_BUILD, shell::has_program);
    all.extend(missing(FOR_DIST, shell::has_program));
    install(&all)?;
    let sysroot = shell::read(Command::new("rustc").current_dir(shell::root()).args(["--print", "sysroot"]))?;
    if std::path::Path::new(sysroot.trim()).join("lib/rustlib").join(STATIC_TARGET).is_dir() {
        return Ok(());
    }
    shell::run(Command::new("rustup").current_dir(shell::root()).args(["target", "add", STATIC_TARGET]))
}

/// Installs what booting a clean machine needs.
///
/// # Errors
/// As [`packages_to_test`].
pub(crate) fn packages_for_machines() -> anyhow::Result<()> {
    install(&missing(FOR_MACHINES, shell::has_program))
}

fn install(missing: &[&Package]) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    for package in missing {
        println!("missing: {} ({})", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if !is_root() {
        bail!("run this, then try again:  sudo apt-get update && sudo apt-get install -y {}", names.join(" "));
    }
    shell::run(apt_get().args(["update", "-q"]))?;
    shell::run(apt_get().args(["install", "-y", "-q", "--no-install-recommends"]).args(names))
}

fn missing(packages: &[Package], has_program: impl Fn(&str) -> bool) -> Vec<&Package> {
    packages.iter().filter(|package| !has_program(package.program)).collect()
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        assert!(missing(TO_BUILD, |_| true).is_empty());
        assert_eq!(missing(TO_TEST, |_| false).len(), TO_TEST.len());
        let without_compiler = missing(TO_BUILD, |program| program != "cc");
        assert!(without_compiler.iter().all(|package| package.program == "cc"));
    }
}
