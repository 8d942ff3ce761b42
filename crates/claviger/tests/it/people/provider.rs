//! A real OpenID provider, npm's `oidc-provider`, as a process of its own; and people who log in there.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use tempfile::TempDir;

/// What a provider is.
pub(super) struct Provider {
    pub(super) issuer: String,
    folder: TempDir,
    child: Child,
    _stdin: ChildStdin,
}

/// Where its library is installed, by `cargo xtask setup`.
fn library() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/oidc-provider/node_modules/oidc-provider/lib/index.js");
    folder.canonicalize().expect("npm's oidc-provider is installed by `cargo xtask setup`")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oidc-provider").join(name)
}

/// An authority of its own and a certificate for `localhost`.
fn certificates(folder: &Path) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the provider's CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &Issuer::new(params, ca_key)).unwrap();
    for (name, text) in [("ca.pem", ca), ("cert.pem", leaf.pem()), ("key.pem", key.serialize_pem())] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

impl Provider {
    pub(super) fn start() -> Self {
        Self::with(&[])
    }

    /// With these variables of its script.
    pub(super) fn with(environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let mut command = Command::new("node");
        command.arg(script("provider.mjs")).env("OIDC_PROVIDER", format!("file://{}", library().display()));
        command.env("CERT", folder.path().join("cert.pem")).env("KEY", folder.path().join("key.pem"));
        command.envs(environment.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let issuer = line.trim().strip_prefix("ready ").expect("the provider starts").to_owned();
        let stdin = child.stdin.take().unwrap();
        Self { issuer, folder, child, _stdin: stdin }
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Its section of a server's configuration.
    pub(super) fn section(&self, name: &str, more: &str) -> String {
        format!(
            "[auth.oidc.{name}]\nissuer = \"{}\"\nclient_id = \"claviger\"\nca = \"{}\"\nuser_claim = \"preferred_username\"\n\
             groups_claim = \"groups\"\n{more}\n",
            self.issuer,
            self.ca().display()
        )
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.issuer.replace("https://localhost", "127.0.0.1").parse().unwrap()
    }

    /// Asks it for something, as any program can.
    pub(super) fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> claviger_testkit::Answer {
        let mut client = claviger_testkit::Client::connect(self.address(), &self.ca(), None).unwrap();
        client.request(method, target, headers, body).unwrap()
    }

    fn change(&self, target: &str) {
        assert_eq!(self.ask("GET", target, &[], b"").status, 200);
    }

    /// New keys from now on, and only those.
    pub(super) fn rotate(&self) {
        self.change("/test/rotate");
    }

    /// Its clock goes this many seconds before ours.
    pub(super) fn shift_clock(&self, seconds: i64) {
        self.change(&format!("/test/clock?shift={seconds}"));
    }

    pub(super) fn set_groups(&self, user: &str, groups: &str) {
        self.change(&format!("/test/groups?user={user}&groups={groups}"));
    }

    /// What a person does in a browser from `url` on; gives the last line of `end`.
    pub(super) fn browse(&self, url: &str, user: &str, end: &str) -> String {
        let mut command = Command::new("node");
        command.arg(script("browser.mjs")).args([url, user, end]).env("NODE_EXTRA_CA_CERTS", self.ca());
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert!(output.status.success() && !said.is_empty(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    pub(super) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
    }
}
