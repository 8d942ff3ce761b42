//! A clean Debian machine with systemd: a container whose changes are forgotten when it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use crate::provider::Provider;
use crate::{dist, setup, shell};

/// What a fresh server has, and nothing of ours.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,ca-certificates,curl,openssl,sqlite3,procps,jq";
const RELEASE: &str = "bookworm";
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Where the results of `dist` lie in the machine.
const DIST: &str = "/opt/dist";
/// Where the company's OpenID provider listens, as seen from the machine.
const PROVIDER_PORT: u16 = 8443;
/// Somebody's desktop: a browser in which Dana, who is in the group of the guide, logs in.
const BROWSER: &str = r#"#!/bin/sh
set -e
curl -fsS -o /dev/null "https://localhost:8443/test/groups?user=dana&groups=payments"
exec curl -fsS -o /dev/null --get https://localhost:8443/test/browse --data user=dana --data-urlencode "url=$1"
"#;

/// A running machine; it ends with this value.
pub(super) struct Machine {
    nspawn: Child,
    /// Its first process, as seen from here.
    init: u32,
    provider: Option<Provider>,
    folder: TempDir,
}

impl Machine {
    /// Boots one; `dist` has a package to install, or one is built.
    ///
    /// # Errors
    /// Not root, or systemd-nspawn cannot boot here.
    pub(super) fn boot(dist: Option<&Path>) -> anyhow::Result<Self> {
        setup::packages_for_machines()?;
        let root = tree()?;
        let dist = match dist {
            Some(dist) => dist.to_owned(),
            None => dist::package_for_guides()?,
        };
        super::found(&dist, |name| name.ends_with(".deb"))?;
        let mut command = Command::new("systemd-nspawn");
        command.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--volatile=overlay", "--private-network", "-D"]).arg(&root);
        command.arg(format!("--bind-ro={}:{DIST}", dist.canonicalize()?.display()));
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1").stdin(Stdio::null()).stdout(Stdio::null());
        let nspawn = command.spawn().context("starting systemd-nspawn")?;
        let mut machine = Self { nspawn, init: 0, provider: None, folder: tempfile::tempdir()? };
        machine.wait_until_up()?;
        machine.be_in_a_company()?;
        Ok(machine)
    }

    fn wait_until_up(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < BOOT_LIMIT {
            ensure!(self.nspawn.try_wait()?.is_none(), "the machine ended while it started");
            if let Some(init) = child_of(self.nspawn.id()) {
                self.init = init;
                let output = self.enter().args(["systemctl", "is-system-running"]).stderr(Stdio::null()).output()?;
                // Degraded: a container cannot mount what a real machine mounts.
                if matches!(String::from_utf8_lossy(&output.stdout).trim(), "running" | "degraded") {
                    return Ok(());
                }
            }
            thread::sleep(Duration::from_millis(200));
        }
        bail!("the machine was not up within {BOOT_LIMIT:?}")
    }

    /// What stands around a company's machine and is not ours: a provider whose certificate all machines trust, and a desktop.
    fn be_in_a_company(&mut self) -> anyhow::Result<()> {
        let mut node = Command::new("nsenter");
        node.args(["--target", &self.init.to_string(), "--net", "node"]);
        let provider = Provider::start(self.folder.path(), node, PROVIDER_PORT)?;
        let root = PathBuf::from(format!("/proc/{}/root", self.init));
        fs::copy(&provider.certificate, root.join("usr/local/share/ca-certificates/company.crt"))?;
        shell::run(self.enter().arg("update-ca-certificates").stdout(Stdio::null()).stderr(Stdio::null()))?;
        let browser = root.join("usr/local/bin/xdg-open");
        fs::write(&browser, BROWSER)?;
        fs::set_permissions(&browser, fs::Permissions::from_mode(0o755))?;
        self.provider = Some(provider);
        Ok(())
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]);
        command.args([
            "--root",
            "--wd=/root",
            "env",
            "-i",
            "HOME=/root",
            "LANG=C.UTF-8",
            "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]);
        command
    }

    /// A root shell on it.
    pub(super) fn shell(&self) -> Command {
        let mut command = self.enter();
        let issuer = self.provider.iter().map(|provider| format!("ISSUER={}", provider.issuer));
        command.arg("DISPLAY=:0").args(issuer).args(["bash", "--noprofile", "--norc"]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.enter().args(["systemctl", "poweroff", "--force", "--force"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}

/// The first child of a process.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// The machine's files, made once.
fn tree() -> anyhow::Result<PathBuf> {
    let name = format!("{RELEASE}-{:08x}", PACKAGES.bytes().fold(0u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into())));
    let tree = shell::cache()?.join("machines").join(name);
    if tree.join("sbin/init").exists() {
        return Ok(tree);
    }
    println!("making a clean {RELEASE} (once)");
    let unfinished = tree.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished)?;
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", &format!("--include={PACKAGES}"), RELEASE]).arg(&unfinished).stdout(Stdio::null());
    shell::run(&mut command)?;
    // What an installer writes and debootstrap does not.
    fs::write(unfinished.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    fs::write(unfinished.join("etc/hostname"), "clean\n")?;
    fs::rename(&unfinished, &tree)?;
    Ok(tree)
}
