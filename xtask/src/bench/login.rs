//! A person's login with PKCE, as the command line has it, at a real provider on this machine.
//!
//! Measured is what Claviger adds: from the start of `claviger login` until it shows where to log in, and from the browser's
//! coming back until it exits, without the time in which the provider works on its requests. What a person and his browser do
//! in between is not.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::Bench;
use super::figure::{Figure, Goal};
use super::server::Claviger;
use crate::provider::Provider;

const RUNS: usize = 20;
const MOST_MS: f64 = 300.0;

/// The figures of the line.
pub(super) fn figures(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    let mut provider = Provider::start(&bench.subfolder("provider")?, Command::new("node"), 0)?;
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
