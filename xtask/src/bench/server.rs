//! A Claviger development server under the bench, and how its callers present themselves.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::Bench;
use super::load::{Load, Peer, Targets, name_in};
use super::metrics::Metrics;
use crate::dev::{Environment, Server};

const START_LIMIT: Duration = Duration::from_secs(60);
/// Connections that create keys at once.
const CREATORS: usize = 192;

/// A running `claviger server --dev`; it ends with this value.
pub(super) struct Claviger {
    server: Server,
    environment: Environment,
    /// Name of the machine whose certificate the development folder has.
    pub(super) machine: String,
    metrics: Metrics,
    /// How long after its start it accepted connections and called itself ready.
    pub(super) ready_after: Duration,
}

impl Claviger {
    /// Starts a server with an empty store in a fresh folder, and waits until it accepts.
    pub(super) fn start(bench: &Bench) -> anyhow::Result<Self> {
        Self::start_with(bench, &[])
    }

    /// The same with settings from the environment.
    pub(super) fn start_with(bench: &Bench, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = bench.subfolder("claviger")?;
        Self::open(bench, &folder, settings)
    }

    /// Starts a server in `folder`, with whatever store is there, and waits until it accepts.
    pub(super) fn open(bench: &Bench, folder: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let dev = folder.join("dev");
        // One that was killed leaves its file behind, which would be taken for that of the new one.
        let _ = fs::remove_file(dev.join("dev.env"));
        let mut command = Command::new(bench.programs.join("claviger"));
        command.args(["server", "--dev", "--dir"]).arg(&dev).envs(settings.iter().copied());
        let begun = Instant::now();
        let mut server = Server::start(&mut command, folder.join("log"))?;
        let environment = wait_until_ready(&mut server, &dev.join("dev.env"))?;
        let ready_after = begun.elapsed();
        let machine = name_in(bench, &environment.path("CLAVIGER_MACHINE_CERT")?)?;
        let metrics = Metrics::at(environment.value("CLAVIGER_METRICS")?)?;
        Ok(Self { server, environment, machine, metrics, ready_after })
    }

    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Ends it as an operator would, so that its store is whole and its log is signed.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.server.stop()
    }

    /// Variables for the command line, as the administrator.
    pub(super) fn client_environment(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let names = ["CLAVIGER_ADDR", "CLAVIGER_CA", "CLAVIGER_TOKEN"];
        names.into_iter().map(|name| Ok((name, self.environment.value(name)?.to_owned()))).collect()
    }

    /// The administrator of the development folder, as a Knox user.
    pub(super) fn administrator(&self) -> anyhow::Result<Peer> {
        let token = self.environment.value("CLAVIGER_TOKEN")?;
        Ok(Peer {
            identity: None,
            headers: vec![format!("Authorization: 0u{token}"), "Content-Type: application/x-www-form-urlencoded".to_owned()],
            ..self.anyone()?
        })
    }

    /// The machine of the development folder, by certificate and name.
    pub(super) fn machine(&self) -> anyhow::Result<Peer> {
        Ok(Peer {
            identity: Some((self.environment.path("CLAVIGER_MACHINE_CERT")?, self.environment.path("CLAVIGER_MACHINE_KEY")?)),
            headers: vec![format!("Authorization: 0t{}", self.machine)],
            ..self.anyone()?
        })
    }

    /// The machine's name.
    pub(super) fn machine_name(&self) -> &str {
        &self.machine
    }

    /// The same machine on the native API, where the certificate says it all.
    pub(super) fn native_machine(&self) -> anyhow::Result<Peer> {
        Ok(Peer { headers: vec![format!("Authorization: Machine {}", self.machine)], ..self.machine()? })
    }

    /// The administrator on the native API.
    pub(super) fn native_administrator(&self) -> anyhow::Result<Peer> {
        let token = self.environment.value("CLAVIGER_TOKEN")?;
        let headers = vec![format!("Authorization: Bearer {token}"), "Content-Type: application/json".to_owned()];
        Ok(Peer { headers, ..self.anyone()? })
    }

    fn anyone(&self) -> anyhow::Result<Peer> {
        Ok(Peer {
            url: self.environment.value("CLAVIGER_ADDR")?.to_owned(),
            ca: self.environment.path("CLAVIGER_CA")?,
            identity: None,
            headers: Vec::new(),
            pid: self.pid(),
            metrics: Some(self.metrics.clone()),
        })
    }

    /// Creates a key on Knox's surface that the machine may read.
    ///
    /// # Errors
    /// The server refuses; the message has its answer, which holds no secret.
    pub(super) fn create_key(&self, bench: &Bench, id: &str, data: &str) -> anyhow::Result<()> {
        let body = self.creation(id, data);
        let answer = self.administrator()?.once(bench, "POST", "/v0/keys/", Some(&body))?;
        ensure!(answer.status == 200, "creating `{id}`: status {}: {}", answer.status, answer.body);
        Ok(())
    }

    /// Creates `count` keys of this kind on many connections; `{n}` in the id becomes a number from 0 on.
    pub(super) fn create_keys(&self, bench: &Bench, id: &str, data: &str, count: u64) -> anyhow::Result<()> {
        let body = self.creation(id, data).replace("%7Bn%7D", "{n}");
        let targets = Targets::One("/v0/keys/");
        let connections = CREATORS.min(usize::try_from(count)?);
        let load = Load { method: "POST", targets, body: Some(&body), connections, length: None, count: Some(count) };
        self.administrator()?.closed(bench, &load)?;
        Ok(())
    }

    fn creation(&self, id: &str, data: &str) -> String {
        let acl = serde_json::json!([
            {"type": "Machine", "id": self.machine, "access": "Read"}
        ]);
        form(&[("id", id), ("data", data), ("acl", &acl.to_string())])
    }
}

fn wait_until_ready(server: &mut Server, file: &Path) -> anyhow::Result<Environment> {
    let begun = Instant::now();
    loop {
        if let Some(environment) = ready(file) {
            return Ok(environment);
        }
        server.check_alive()?;
        ensure!(begun.elapsed() < START_LIMIT, "the server is not ready");
        thread::sleep(Duration::from_micros(500));
    }
}

/// The environment once its file is written, its address accepts connections, and it calls itself ready.
fn ready(file: &Path) -> Option<Environment> {
    let environment = Environment::parse(&fs::read_to_string(file).ok()?);
    let address = environment.value("CLAVIGER_ADDR").ok()?;
    let address = address.strip_prefix("https://")?.trim_end_matches('/');
    let addresses = address.to_socket_addrs().ok()?;
    TcpStream::connect(&*addresses.collect::<Vec<_>>()).ok()?;
    let metrics = Metrics::at(environment.value("CLAVIGER_METRICS").ok()?).ok()?;
    metrics.get("/readyz").is_ok().then_some(environment)
}

/// A form body (application/x-www-form-urlencoded).
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    pairs.join("&")
}

fn percent_encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_fields_survive_any_content() {
        assert_eq!(form(&[("id", "a:b"), ("data", "YQ==")]), "id=a%3Ab&data=YQ%3D%3D");
        assert_eq!(percent_encoded("[{\"é\"}] +&"), "%5B%7B%22%C3%A9%22%7D%5D%20%2B%26");
    }
}
