//! The floor as a process of its own; what it does is in the library.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use tokio::net::TcpListener;

/// What the floor is told on its command line.
#[derive(Parser)]
#[command(about = "Stock axum with mutual TLS and a static body: what the bench measures against")]
struct Arguments {
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Size of the body of every answer, in bytes (at least 2).
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Folder for `ca.pem`, `client.pem` and `client.key`, written before the server is ready.
    #[arg(long, required_unless_present = "sign_seconds")]
    dir: Option<PathBuf>,
    /// Serve nothing: sign with P-256 by the bare library for so many seconds, and print the microseconds of one signature.
    #[arg(long, value_name = "SECONDS", conflicts_with = "dir")]
    sign_seconds: Option<f64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, size, dir, sign_seconds } = Arguments::parse();
    let Some(dir) = dir else {
        println!("{}", xtask_floor::sign_for(sign_seconds.unwrap_or(1.0))?);
        return Ok(());
    };
    xtask_floor::run(TcpListener::bind(listen).await?, size, &dir).await
}
