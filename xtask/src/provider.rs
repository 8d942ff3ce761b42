//! A real OpenID provider on this machine, for what people log in at: npm's `oidc-provider`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context as _;

use crate::{setup, shell};

/// The provider as a process; it ends with this value.
pub(crate) struct Provider {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Its address, as tokens name it.
    pub(crate) issuer: String,
    /// Of its TLS, and the only root of it.
    pub(crate) certificate: PathBuf,
}

impl Provider {
    /// Starts it on the loopback interface; `node` runs Node where it is to be, and port 0 is a free one.
    ///
    /// # Errors
    /// It cannot be installed, or does not start.
    pub(crate) fn start(folder: &Path, mut node: Command, port: u16) -> anyhow::Result<Self> {
        setup::provider_library()?;
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
        node.arg(shell::root().join(setup::PROVIDER).join("provider.mjs")).env("PORT", port.to_string());
        node.env("OIDC_PROVIDER", format!("file://{}", library.display())).env("CERT", &certificate).env("KEY", key);
        let mut child = node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("starting `node`")?;
        let input = child.stdin.take().context("its input is piped")?;
        let mut output = BufReader::new(child.stdout.take().context("its output is piped")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let issuer = line.trim().strip_prefix("ready ").context("the provider does not start")?.to_owned();
        Ok(Self { child, input, output, issuer, certificate })
    }

    /// Milliseconds in which it worked on requests so far.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn spent(&mut self) -> anyhow::Result<f64> {
        self.input.write_all(b"\n")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().strip_prefix("spent ").context("the provider's answer")?.parse().context("the provider's time")
    }

    /// Logs somebody in; gives where the provider sends the browser then.
    ///
    /// # Errors
    /// Node cannot be run.
    pub(crate) fn browse(&self, url: &str) -> anyhow::Result<String> {
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
