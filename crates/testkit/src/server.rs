//! The real server, as a process of its own, in a folder of its own.

use crate::client::{Client, Credential};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How a test server differs from the plain one.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// Text of the configuration file, if one is wanted.
    pub config: Option<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// A running development server. Dropping it kills the process and removes the folder.
pub struct TestServer {
    program: PathBuf,
    folder: TempDir,
    options: Options,
    child: Option<Child>,
    env: HashMap<String, String>,
}

impl TestServer {
    /// Starts `program server --dev` in a new folder and waits until it serves.
    ///
    /// # Errors
    /// When it does not serve within 30 s; with its output.
    pub fn start(program: &Path, options: Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut server = Self { program: program.to_owned(), folder, options, child: None, env: HashMap::new() };
        server.restart()?;
        Ok(server)
    }

    /// Starts a second server on a copy of this one's folder as it lies on the disk: a clone, or a backup that was started elsewhere.
    ///
    /// # Errors
    /// As for [`TestServer::start`].
    pub fn start_copy(&self) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        copy(&self.dir(), folder.path())?;
        let mut server = Self { program: self.program.clone(), folder, options: self.options.clone(), child: None, env: HashMap::new() };
        server.restart()?;
        Ok(server)
    }

    /// Copies database and audit log into `to`, as one does for a backup while the server is stopped.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub fn back_up(&self, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        for name in self.state()? {
            copy(&name, to)?;
        }
        Ok(())
    }

    /// Puts a backup in the place of database and audit log of a stopped server.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn put_back(&self, from: &Path) -> Result<()> {
        for path in self.state()? {
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
        for entry in std::fs::read_dir(from)? {
            copy(&entry?.path(), &self.dir())?;
        }
        Ok(())
    }

    fn state(&self) -> Result<Vec<PathBuf>> {
        let all = std::fs::read_dir(self.dir())?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
        let is_state =
            |path: &PathBuf| path.file_name().is_some_and(|name| name == "audit" || name.as_encoded_bytes().starts_with(b"claviger.db"));
        Ok(all.into_iter().filter(is_state).collect())
    }

    /// Starts it again in the same folder; a running process is killed first.
    ///
    /// # Errors
    /// As for [`TestServer::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let env_file = self.dir().join("dev.env");
        // Left behind by a killed process.
        let _ = std::fs::remove_file(&env_file);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.program);
        command.args(["server", "--dev", "--dir"]).arg(self.dir());
        if let Some(text) = &self.options.config {
            let path = self.folder.path().join("claviger.toml");
            std::fs::write(&path, text)?;
            command.arg("--config").arg(path);
        }
        command.envs(self.options.environment.iter().cloned()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().with_context(|| format!("starting {}", self.program.display()))?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while !env_file.exists() {
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.log());
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                bail!("the server did not start in time:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child = Some(child);
        let text = std::fs::read_to_string(&env_file)?;
        self.env = text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.trim_matches('\'').to_owned())).collect();
        Ok(())
    }

    /// Kills the process as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it with SIGTERM and waits.
    ///
    /// # Errors
    /// When it does not end within 20 s, or not with success.
    pub fn terminate(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the server ended with {status}:\n{}", self.log()),
                None if Instant::now() > deadline => bail!("the server did not stop:\n{}", self.log()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The server's folder: store, root, audit log, certificates.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("dev")
    }

    /// What the server wrote to its standard outputs.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// A variable of `dev.env`; empty when it is not there.
    #[must_use]
    pub fn env(&self, name: &str) -> &str {
        self.env.get(name).map_or("", String::as_str)
    }

    /// All variables of `dev.env`.
    #[must_use]
    pub fn env_all(&self) -> &HashMap<String, String> {
        &self.env
    }

    /// Where clients connect.
    ///
    /// # Panics
    /// When `dev.env` has no address, which a started server's has.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.env("CLAVIGER_ADDR").trim_start_matches("https://").parse().expect("dev.env names an address")
    }

    /// A connection without a client certificate.
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.address(), Path::new(self.env("CLAVIGER_CA")), None)
    }

    /// A connection with the development machine's certificate.
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn machine(&self) -> Result<Client> {
        self.with_certificate("CLAVIGER_MACHINE_CERT", "CLAVIGER_MACHINE_KEY")
    }

    /// A connection with the development service's certificate.
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn service(&self) -> Result<Client> {
        self.with_certificate("CLAVIGER_SERVICE_CERT", "CLAVIGER_SERVICE_KEY")
    }

    fn with_certificate(&self, certificate: &str, key: &str) -> Result<Client> {
        let credential = Credential::from_files(Path::new(self.env(certificate)), Path::new(self.env(key)))?;
        Client::connect(self.address(), Path::new(self.env("CLAVIGER_CA")), Some(credential))
    }

    /// Knox's `Authorization` value of the administrator.
    #[must_use]
    pub fn admin(&self) -> String {
        format!("0u{}", self.env("CLAVIGER_TOKEN"))
    }

    /// The native API's `Authorization` value of the administrator.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.env("CLAVIGER_TOKEN"))
    }
}

fn copy(from: &Path, into: &Path) -> Result<()> {
    let status = Command::new("cp").args(["-a", "--sparse=always"]).args([from, into]).status()?;
    anyhow::ensure!(status.success(), "copying {}: {status}", from.display());
    Ok(())
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}
