//! A server, a relay before it that can fail, and agents.

use crate::command_line::{command, finish};
use crate::{program, server};
use claviger_testkit::TestServer;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long something that must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const MACHINE: &str = "machine:dev-machine=read";

/// Waits until `holds`.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address that stays the same while the server behind it comes and goes.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<RelayState>>,
}

#[derive(Default)]
struct RelayState {
    target: Option<SocketAddr>,
    open: Vec<TcpStream>,
}

impl Relay {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(RelayState { target: Some(target), open: Vec::new() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut state = shared.lock().unwrap();
                // While there is no server the connection is dropped at once.
                if let Some(server) = state.target.and_then(|target| TcpStream::connect(target).ok()) {
                    state.open.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                    pass_on(client.try_clone().unwrap(), server.try_clone().unwrap());
                    pass_on(server, client);
                }
            }
        });
        Self { address, state }
    }

    /// Cuts all connections, and lets none through until there is a target.
    pub(super) fn set_target(&self, target: Option<SocketAddr>) {
        let mut state = self.state.lock().unwrap();
        state.target = target;
        for stream in state.open.drain(..) {
            // The other side may be gone.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// A server and a folder for agents.
pub(super) struct Stage {
    pub(super) server: TestServer,
    pub(super) relay: Relay,
    pub(super) folder: tempfile::TempDir,
}

impl Stage {
    pub(super) fn new() -> Self {
        let server = server();
        let relay = Relay::to(server.address());
        let folder = tempfile::tempdir().unwrap();
        // Readers of other users must get as far as the socket.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { server, relay, folder }
    }

    /// Makes keys that the machine may read, each with its value.
    pub(super) fn create(&self, keys: &[(&str, &str)]) {
        for (key, value) in keys {
            self.run_with(&["create", key, "--acl", MACHINE], value);
        }
    }

    /// Runs a command as the administrator.
    pub(super) fn run(&self, arguments: &[&str]) {
        self.run_with(arguments, "");
    }

    pub(super) fn run_with(&self, arguments: &[&str], input: &str) {
        let (code, _, err) = finish(command(&self.server, arguments), input);
        assert_eq!(code, 0, "{arguments:?}: {err}");
    }

    /// A new primary version.
    pub(super) fn rotate(&self, key: &str, value: &str) {
        self.run_with(&["add", key, "--promote"], value);
    }

    pub(super) fn outage(&self) {
        self.relay.set_target(None);
    }

    pub(super) fn back(&self) {
        self.relay.set_target(Some(self.server.address()));
    }

    /// An agent that is not started yet. `rest` is the rest of its configuration, in which `@` is its folder.
    pub(super) fn agent(&self, name: &str, rest: &str) -> Agent {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let env = |name: &str| self.server.env(name);
        let (ca, cert, key) = (env("CLAVIGER_CA"), env("CLAVIGER_MACHINE_CERT"), env("CLAVIGER_MACHINE_KEY"));
        let at = folder.display();
        let rest = rest.replace('@', &at.to_string());
        let text = format!(
            "[server]\nendpoints = [\"https://{}\"]\nca = \"{ca}\"\ncertificate = \"{cert}\"\nprivate_key = \"{key}\"\n{rest}",
            self.relay.address
        );
        std::fs::write(folder.join("node.toml"), text).unwrap();
        Agent { folder, child: None, wrapper: Vec::new(), environment: Vec::new() }
    }
}

/// The usual configuration: the current user may read everything, the key lies in a file.
pub(super) const PLAIN: &str =
    "[node]\nsocket = \"@/socket\"\ncache = \"@/cache\"\n[root]\nkind = \"file\"\n[[secret]]\nid = \"*\"\nusers = [0, 4242]\n";

/// One agent.
pub(super) struct Agent {
    pub(super) folder: PathBuf,
    pub(super) child: Option<Child>,
    /// Put before the program.
    pub(super) wrapper: Vec<String>,
    /// More of its environment.
    pub(super) environment: Vec<(String, String)>,
}

impl Agent {
    fn command(&self) -> Command {
        let mut words: Vec<String> = self.wrapper.clone();
        words.push(program().display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["node", "start", "--config"]).arg(self.folder.join("node.toml"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stdin(Stdio::null());
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Starts it and waits until it serves.
    pub(super) fn start(&mut self) -> &mut Self {
        self.spawn();
        until("the agent serves", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the agent ended: {}", self.log());
            UnixStream::connect(self.socket()).is_ok()
        });
        self
    }

    pub(super) fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        self.child = Some(self.command().stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Starts one that is expected to end by itself.
    pub(super) fn fails(&self) -> (i32, String) {
        let output = self.command().output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it with SIGTERM.
    pub(super) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Status and body of a request.
    pub(super) fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let asked = ask(&self.socket(), method, path);
        let (status, _, body) = asked.unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.log()));
        (status, body)
    }

    /// A secret's value, or the code of the refusal.
    pub(super) fn read(&self, key: &str) -> Result<String, String> {
        let (status, body) = self.ask("GET", &format!("/v1/secrets/{key}"));
        match status {
            200 => Ok(body),
            _ => Err(serde_json::from_str::<Value>(&body).unwrap()["code"].as_str().unwrap().to_owned()),
        }
    }

    pub(super) fn status(&self) -> Value {
        serde_json::from_str(&self.ask("GET", "/v1/status").1).unwrap()
    }

    /// What the status says of one key.
    pub(super) fn state(&self, key: &str) -> String {
        let status = self.status();
        let key = status["keys"].as_array().unwrap().iter().find(|k| k["id"] == key).cloned();
        key.map_or_else(|| "unregistered".to_owned(), |key| key["state"].as_str().unwrap().to_owned())
    }

    pub(super) fn register(&self, key: &str) {
        assert_eq!(self.ask("PUT", &format!("/v1/registered/{key}")).0, 200);
        self.waits_for(key, None);
    }

    /// Waits until the agent has made Knox's folder.
    pub(super) fn waits_for_list(&self, folder: &str) {
        let list = self.path(folder).join(".registered");
        self.until("Knox's list is there", || list.exists());
    }

    /// Writes Knox's list as any program may: without the lock.
    pub(super) fn write_list(&self, text: &str) {
        self.waits_for_list("knox");
        std::fs::write(self.path("knox/.registered"), text).unwrap();
    }

    /// Waits until a key is cached, with this value if one is given.
    pub(super) fn waits_for(&self, key: &str, value: Option<&str>) {
        self.until(&format!("{key} is cached as {value:?}"), || match (self.read(key), value) {
            (Ok(found), Some(value)) => found == value,
            (found, None) => found.is_ok(),
            (Err(_), Some(_)) => false,
        });
    }

    pub(super) fn waits_until_gone(&self, key: &str) {
        self.until(&format!("{key} is gone"), || self.read(key) == Err("not_found".to_owned()));
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "never: {what}\n{}\n{}", self.status(), self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Files of entries in the cache.
    pub(super) fn entries(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.path("cache")).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("e-") && path.extension().is_none()).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One request on a connection of its own: status, head, body.
pub(super) fn ask(socket: &Path, method: &str, path: &str) -> std::io::Result<(u16, String, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((head[9..12].parse().unwrap(), head.to_owned(), body.to_owned()))
}

/// Does something as another user of this machine, on a thread whose credentials alone are changed. The tests run as root.
pub(super) fn in_the_name_of<T: Send>(user: u32, groups: &[u32], act: impl FnOnce() -> T + Send) -> T {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    std::thread::scope(|scope| {
        let acting = scope.spawn(|| {
            let all: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
            set_thread_groups(&all).unwrap();
            let (group, user) = (Gid::from_raw(user), Uid::from_raw(user));
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            act()
        });
        acting.join().unwrap()
    })
}
