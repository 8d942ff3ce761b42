//! The node agent: reads at its socket, its memory, and how soon a revocation has reached many of them.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::figure::{Figure, Goal};
use super::server::{Claviger, form};
use super::{Bench, load, process};

const SECRETS: u64 = 1_000;
const DATA: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const LENGTH: u64 = 16;
const CONNECTIONS: usize = 16;
const LEAST_PER_SECOND: f64 = 100_000.0;
const MOST_READ_MS: f64 = 0.2;
const MOST_MB: f64 = 12.0;
const MOST_REVOKE_MS: f64 = 1_000.0;
/// Keys that each of many agents holds, and loses one after another.
const REVOKED: usize = 5;
const PAUSE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(60);
/// All agents are of one machine, and open their streams together.
const MANY: &[(&str, &str)] = &[("CLAVIGER__LIMITS__WATCHES_PER_IDENTITY", "1000000")];

/// A server and an agent that holds secrets of it.
struct Agent {
    child: Child,
    socket: PathBuf,
    _server: Claviger,
}

impl Agent {
    fn start(bench: &Bench) -> anyhow::Result<Self> {
        let server = Claviger::start(bench)?;
        server.create_keys(bench, "bench:node:{n}", DATA, SECRETS)?;
        let folder = bench.subfolder("node")?;
        let config = folder.join("node.toml");
        let keys: Vec<String> = (0..SECRETS).map(|n| format!("bench:node:{n}")).collect();
        fs::write(&config, configuration(&server, &folder, &keys)?)?;
        let mut command = Command::new(bench.programs.join("claviger"));
        command.args(["node", "start", "--config"]).arg(&config).stdin(Stdio::null());
        let log = fs::File::create(folder.join("log"))?;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("starting the agent")?;
        let agent = Self { child, socket: folder.join("socket"), _server: server };
        agent.wait_until_full()?;
        Ok(agent)
    }

    fn wait_until_full(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.cached().unwrap_or(0) < SECRETS {
            ensure!(
                begun.elapsed() < LIMIT,
                "the agent did not fetch all secrets; its log is in {}",
                self.socket.with_file_name("log").display()
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn cached(&self) -> Option<u64> {
        use std::io::{Read as _, Write as _};
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let report: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
        report["cached"].as_u64()
    }

    fn resident_mb(&self) -> anyhow::Result<f64> {
        Ok(process::resident(self.child.id())? as f64 / 1e6)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself, and then the line has failed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(server: &Claviger, folder: &Path, keys: &[String]) -> anyhow::Result<String> {
    let machine = server.native_machine()?;
    let (certificate, key) = machine.identity.context("the machine has a certificate")?;
    let user = rustix::process::geteuid().as_raw();
    let at = folder.display();
    let mut text = format!(
        "[node]\nsocket = \"{at}/socket\"\ncache = \"{at}/cache\"\n[root]\nkind = \"file\"\n[server]\nendpoints = [\"{}\"]\nca = \"{}\"\ncertificate = \"{}\"\nprivate_key = \"{}\"\n",
        machine.url,
        machine.ca.display(),
        certificate.display(),
        key.display()
    );
    for key in keys {
        text.push_str(&format!("[[secret]]\nid = \"{key}\"\nusers = [{user}]\n"));
    }
    Ok(text)
}

/// The figures of the line about reads.
pub(super) fn read(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    let agent = Agent::start(bench)?;
    let loop_of = |connections| load::unix(bench, &agent.socket, "/v1/secrets/bench:node:{n}", SECRETS, connections, LENGTH);
    let number = |report: &Value, what: &str| report[what].as_f64().with_context(|| format!("the report has no `{what}`"));
    let pairs = bench.in_turn(|| loop_of(CONNECTIONS), || loop_of(1))?;
    let of = |pick: &dyn Fn(&(Value, Value)) -> anyhow::Result<f64>| pairs.iter().map(pick).collect::<anyhow::Result<Vec<_>>>();
    let rates = of(&|(many, _)| number(many, "requests_per_second"))?;
    let busy = of(&|(many, _)| Ok(number(many, "p99_us")? / 1e3))?;
    let alone = of(&|(_, one)| Ok(number(one, "p99_us")? / 1e3))?;
    Ok(vec![
        Figure::new(name, "/s", &rates)?.with_goal(Goal::AtLeast(LEAST_PER_SECOND)),
        Figure::new(format!("{name}/p99"), "ms p99", &busy)?.with_goal(Goal::AtMost(MOST_READ_MS)),
        Figure::new(format!("{name}/one-connection"), "ms p99", &alone)?.with_goal(Goal::AtMost(MOST_READ_MS)),
        Figure::new(format!("{name}/resident"), "MB", &[agent.resident_mb()?])?,
    ])
}

/// The figures of the line about memory.
pub(super) fn memory(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    let agent = Agent::start(bench)?;
    // What fetching needed is given back when the last step is on disk.
    thread::sleep(PAUSE);
    Ok(vec![Figure::new(name, "MB", &[agent.resident_mb()?])?.with_goal(Goal::AtMost(MOST_MB))])
}

/// The figures of the line about revocations. A revocation's time begins when it is sent.
pub(super) fn revoke(bench: &Bench, name: &str, wanted: usize) -> anyhow::Result<Vec<Figure>> {
    let nodes = bench.repetitions(wanted);
    let server = Claviger::start_with(bench, MANY)?;
    let keys: Vec<String> = (0..REVOKED).map(|n| format!("bench:revoke:{n}")).collect();
    for key in &keys {
        server.create_key(bench, key, DATA)?;
    }
    // In memory: the disks of a thousand machines are not this one's.
    let memory = Path::new("/dev/shm");
    let folder = tempfile_in(if memory.is_dir() { memory } else { bench.folder.as_path() })?;
    let config = folder.0.join("node.toml");
    fs::write(&config, configuration(&server, &folder.0, &keys)?)?;
    let administrator = server.administrator()?;
    let entry = serde_json::json!({"type": "Machine", "id": server.machine, "access": "None"});
    let body = form(&[("access", &entry.to_string())]);
    let mut sent = Vec::new();
    let report = load::nodes(bench, &config, &folder.0.join("caches"), nodes, || {
        for key in &keys {
            let answer = administrator.once(bench, "PUT", &format!("/v0/keys/{key}/access/"), Some(&body))?;
            ensure!(answer.status == 200, "revoking `{key}`: {}", answer.body);
            sent.push(answer.sent_ns);
            thread::sleep(PAUSE);
        }
        Ok(())
    })?;
    let mut millis = (Vec::new(), Vec::new());
    for (key, sent) in keys.iter().zip(&sent) {
        let times = report["gone"][key].as_array().with_context(|| format!("`{key}` did not go"))?;
        ensure!(times.len() == nodes, "`{key}` went from {} of {nodes} nodes", times.len());
        let since = |at: &Value| at.as_u64().map(|at| at.saturating_sub(*sent) as f64 / 1e6).context("a time that is no number");
        for pair in times {
            millis.0.push(since(&pair[0])?);
            millis.1.push(since(&pair[1])?);
        }
    }
    let p99 = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[(values.len() * 99 / 100).min(values.len() - 1)]
    };
    Ok(vec![
        Figure::new(name, "ms p99", &[p99(&mut millis.0)])?.with_goal(Goal::AtMost(MOST_REVOKE_MS)),
        Figure::new(format!("{name}/disk"), "ms p99", &[p99(&mut millis.1)])?.with_goal(Goal::AtMost(MOST_REVOKE_MS)),
        Figure::new(format!("{name}/nodes"), "nodes", &[nodes as f64])?,
    ])
}

/// A folder that goes with this value.
struct Folder(PathBuf);

fn tempfile_in(place: &Path) -> anyhow::Result<Folder> {
    let folder = place.join(format!("claviger-bench-nodes-{}", std::process::id()));
    fs::create_dir_all(folder.join("caches"))?;
    Ok(Folder(folder))
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind costs only space.
        let _ = fs::remove_dir_all(&self.0);
    }
}
