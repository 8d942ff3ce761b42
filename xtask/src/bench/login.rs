//! A person's login with PKCE, as the command line has it, at a real provider on this machine.
//!
//! Measured is what Claviger adds: from the start of `claviger login` until it shows where to log in, and from the browser's
//! coming back until it exits, without the time in which the provider works on its requests. What a person and his browser do
//! in between is not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::Bench;
use super::figure::{Figure, Goal};
use super::server::Claviger;
use crate::{setup, shell};

const RUNS: usize = 20;
const MOST_MS: f64 = 300.0;

/// npm's `oidc-provider` as a process; it ends with this value.
struct Provider {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    issuer: String,
    certificate: PathBuf,
}

/// The figures of the line.
pub(super) fn figures(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    setup::provider_library()?;
    let mut provider = Provider::start(&bench.subfolder("provider")?)?;
    let issuer = format!(
        "{{ corp = {{ issuer = \"{}\", client_id = \"claviger\", user_claim = \"sub\", ca = \"{}\" }} }}",
        provider.issuer,
        provider.certificate.display()
    );
    let claviger = Claviger::start_with(bench, &[("CLAVIGER__AUTH__OIDC", &issuer)])?;
    let home = bench.subfolder("home")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.repetitions(RUNS) {
        let (all, provider) = one(bench, &claviger, &mut provider, &home)?;
        ours.push(all - provider);
        theirs.push(provider);
    }
    Ok(vec![Figure::new(name, "ms more", &ours)?.with_goal(Goal::AtMost(MOST_MS)), Figure::new(format!("{name}/provider"), "ms", &theirs)?])
}

/// Milliseconds of one login without the person's part, and those of them that are the provider's.
fn one(bench: &Bench, claviger: &Claviger, provider: &mut Provider, home: &Path) -> anyhow::Result<(f64, f64)> {
    let mut command = Command::new(bench.programs.join("claviger"));
    command.args(["login", "--no-browser"]).envs(claviger.client_environment()?).env_remove("CLAVIGER_TOKEN");
    command.env("CLAVIGER_SESSIONS", home.join("sessions.json")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let before = provider.spent()?;
    let begun = Instant::now();
    let mut child = command.spawn().context("starting `claviger login`")?;
    let mut said = BufReader::new(child.stderr.take().context("its errors are piped")?);
    let url = shown(&mut said)?;
    let until_shown = begun.elapsed();
    let between = provider.spent()?;
    let landing = provider.browse(&url)?;
    let after_person = provider.spent()?;
    let begun = Instant::now();
    land(&landing)?;
    let mut rest = String::new();
    said.read_to_string(&mut rest)?;
    let status = child.wait()?;
    let until_exit = begun.elapsed();
    ensure!(status.success(), "`claviger login` failed ({status}): {rest}");
    let spent = (between - before) + (provider.spent()? - after_person);
    Ok(((until_shown + until_exit).as_secs_f64() * 1e3, spent))
}

/// The address that the command shows.
fn shown(said: &mut impl std::io::BufRead) -> anyhow::Result<String> {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        ensure!(said.read_line(&mut line)? > 0, "`claviger login` shows no address: {all}");
        if line.starts_with("  https://") {
            return Ok(line.trim().to_owned());
        }
        all.push_str(&line);
    }
}

/// Comes back to the program as a browser does.
fn land(url: &str) -> anyhow::Result<()> {
    let (host, target) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).context("an address of this machine")?;
    let mut stream = TcpStream::connect(host)?;
    stream.write_all(format!("GET /{target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "the program does not take its answer: {answer}");
    Ok(())
}

impl Provider {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let mut make = Command::new("openssl");
        make.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ]);
        make.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]);
        shell::run(make.arg("-keyout").arg(&key).arg("-out").arg(&certificate).stderr(Stdio::null()))?;
        let library = shell::root().join("target/oidc-provider/node_modules/oidc-provider/lib/index.js");
        let mut command = Command::new("node");
        command.arg(shell::root().join(setup::PROVIDER).join("provider.mjs"));
        command.env("OIDC_PROVIDER", format!("file://{}", library.display())).env("CERT", &certificate).env("KEY", key);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("starting `node`")?;
        let input = child.stdin.take().context("its input is piped")?;
        let mut output = BufReader::new(child.stdout.take().context("its output is piped")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let issuer = line.trim().strip_prefix("ready ").context("the provider does not start")?.to_owned();
        Ok(Self { child, input, output, issuer, certificate })
    }

    /// Milliseconds in which it worked on requests so far.
    fn spent(&mut self) -> anyhow::Result<f64> {
        self.input.write_all(b"\n")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().strip_prefix("spent ").context("the provider's answer")?.parse().context("the provider's time")
    }

    /// Logs somebody in; gives where the provider sends the browser then.
    fn browse(&self, url: &str) -> anyhow::Result<String> {
        let mut command = Command::new("node");
        command.arg(shell::root().join(setup::PROVIDER).join("browser.mjs")).args([url, "alice", "print"]);
        Ok(shell::read(command.env("NODE_EXTRA_CA_CERTS", &self.certificate))?.trim().to_owned())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
