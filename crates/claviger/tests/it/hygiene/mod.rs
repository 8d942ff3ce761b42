//! Secrets stay where they belong: in a request while it is answered, sealed in the store, and nowhere else.
//!
//! The proof is by search. Random secrets are written and read under load; then the server's whole memory and everything
//! it wrote are searched for them in every form in which they could be there.

mod dumps;
mod image;
mod load;
mod refusals;
mod sentinels;
mod source;

use crate::server_with;
use claviger_testkit::{Client, TestServer};
use image::{Found, search};
use load::Work;
use sentinels::{Sentinels, summary};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Keys on each surface, and so secrets: many more than requests at once, so that what piles up is seen.
const KEYS: usize = 48;
const HTTP1: usize = 6;
const HTTP2: usize = 2;
const STREAMS: usize = 3;

/// A server that writes all that it can write.
fn talkative(outputs: &Path) -> TestServer {
    let path = |name: &str| outputs.join(name).display().to_string();
    server_with(&format!(
        "[log]\nfilter = \"trace\"\n[audit]\nstdout = true\necs = {:?}\n[knox]\nenabled = true\nlog = {:?}\n",
        path("ecs.log"),
        path("knox.log")
    ))
}

/// Whether this process may read another's memory; otherwise the reason is printed.
fn may_read_memory(server: &TestServer) -> bool {
    match search(server.pid().unwrap(), &Sentinels::of(Vec::new())) {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: the server's memory can be read by root only: {error}");
            false
        }
    }
}

/// Writes every secret once on both surfaces.
fn plant(client: &mut Client, work: &Work) {
    let (status, body) = work.create_used().send(client);
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    for nth in 0..work.secrets.len() {
        for ask in [work.create_knox(nth), work.create_native(nth)] {
            let (status, body) = ask.send(client);
            assert!(matches!(status, 200 | 201), "{status} {}", String::from_utf8_lossy(&body));
        }
    }
}

/// Runs `during` while clients work, and gives back their open connections.
fn under_load(
    server: &TestServer,
    work: &Arc<Work>,
    http2: &[load::Http2],
    runtime: &tokio::runtime::Runtime,
    during: impl FnOnce(),
) -> Vec<Client> {
    work.stop.store(false, Ordering::Relaxed);
    let connections = (0..HTTP1).map(|_| server.client().unwrap());
    let threads: Vec<_> = connections.enumerate().map(|(nth, client)| load::http1(client, work.clone(), nth * 5)).collect();
    let streams = http2.iter().flat_map(|sender| (0..STREAMS).map(|nth| (sender.clone(), 100 + nth * 5)));
    let tasks: Vec<_> = streams.map(|(sender, from)| runtime.spawn(load::http2(sender, work.clone(), from))).collect();
    let before = work.answered.load(Ordering::Relaxed);
    wait_until(|| work.answered.load(Ordering::Relaxed) > before + 20 * (HTTP1 + HTTP2 * STREAMS), "the load");
    during();
    work.stop.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

fn wait_until(mut is_so: impl FnMut() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Fails unless no secret is in memory at `patience` from now at the latest; what was just answered may still be freed.
fn assert_clean(server: &TestServer, sentinels: &Sentinels, patience: Duration, when: &str) {
    let deadline = Instant::now() + patience;
    loop {
        let found = search(server.pid().unwrap(), sentinels).unwrap();
        if found.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            panic!("{when}, secrets are in memory:\n{}", told(&found));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn told(found: &[Found]) -> String {
    found.iter().map(|f| format!("{}: {}\n  {}\n", f.region, summary(&f.hits), f.samples.join("\n  "))).collect()
}

/// How many different secrets are in memory.
fn held(server: &TestServer, sentinels: &Sentinels) -> usize {
    let found = search(server.pid().unwrap(), sentinels).unwrap();
    let hits = image::hits(&found);
    let secrets: BTreeSet<_> = hits.iter().map(|h| h.secret).collect();
    println!("under load {} of {} secrets are in memory: {}", secrets.len(), sentinels.secrets.len(), summary(&hits));
    secrets.len()
}

#[test]
fn a_secret_is_in_memory_only_while_a_request_with_it_is_answered() {
    let outputs = TempDir::new().unwrap();
    let server = talkative(outputs.path());
    let sentinels = Sentinels::new(KEYS);
    let work = Work::new(&server, sentinels.secrets.clone());
    let mut first = server.client().unwrap();
    plant(&mut first, &work);
    assert_outputs_clean(&server, outputs.path(), &sentinels);
    if !may_read_memory(&server) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    assert_clean(&server, &sentinels, Duration::from_secs(4), "after the secrets were planted, with the connection open");

    // A connection holds the secret it is answering, and while it changes over to the next one also that.
    let idle = under_load(&server, &work, &[], &runtime, || {
        let most = (0..5).map(|_| held(&server, &sentinels)).max().unwrap();
        assert!(most <= 2 * HTTP1, "{most} secrets for {HTTP1} requests at once");
    });
    assert_clean(&server, &sentinels, Duration::from_secs(4), "after the load over HTTP/1.1, with idle connections open");

    let http2: Vec<_> = runtime.block_on(async { [load::connect_http2(&server).await, load::connect_http2(&server).await].into() });
    let more_idle = under_load(&server, &work, &http2, &runtime, || {
        held(&server, &sentinels);
    });
    assert_clean(&server, &sentinels, Duration::from_secs(12), "after the load over HTTP/2 as well");
    // It may be clean before it is closed.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !http2.iter().all(load::Http2::is_closed) {
        assert!(Instant::now() < deadline, "an idle HTTP/2 connection is not closed");
        std::thread::sleep(Duration::from_millis(50));
    }

    for nth in 0..KEYS / 2 {
        assert_eq!(work.delete(nth).send(&mut first).0, 200);
    }
    drop((idle, more_idle, http2));
    assert_clean(&server, &sentinels, Duration::from_secs(4), "after half of the keys were deleted and connections closed");
    assert_outputs_clean(&server, outputs.path(), &sentinels);
}

/// Searches everything that the server wrote: its log at its most talkative, the audit log and its copies, Knox's log,
/// the database with its write-ahead log, and the metrics.
fn assert_outputs_clean(server: &TestServer, outputs: &Path, sentinels: &Sentinels) {
    let token = Sentinels::of(vec![server.env("CLAVIGER_TOKEN").as_bytes().to_vec()]);
    let mut searched = Vec::new();
    for path in files(&server.dir()).into_iter().chain(files(outputs)) {
        // The database's and the audit log's passing files may be gone by now.
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let hits = sentinels.search(&bytes);
        assert!(hits.is_empty(), "{}: {}", path.display(), summary(&hits));
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // The development server's own token lies in its folder by design.
        if !name.starts_with("dev.env") && !name.contains("token") {
            assert!(token.search(&bytes).is_empty(), "{} has the token", path.display());
        }
        searched.push((name, bytes.len()));
    }
    for (name, text) in [("the log", server.log()), ("the metrics", metrics(server))] {
        assert!(text.len() > 500, "{name} is there: {text}");
        let hits = sentinels.search(text.as_bytes());
        assert!(hits.is_empty(), "{name}: {}", summary(&hits));
        assert!(token.search(text.as_bytes()).is_empty(), "{name} has the token");
    }
    for wanted in ["ecs.log", "knox.log", ".db", "-wal"] {
        assert!(searched.iter().any(|(name, size)| name.ends_with(wanted) && *size > 0), "{wanted} is not among {searched:?}");
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries.flat_map(|e| if e.file_type().unwrap().is_dir() { files(&e.path()) } else { vec![e.path()] }).collect()
}

fn metrics(server: &TestServer) -> String {
    let address = server.env("CLAVIGER_METRICS").trim_start_matches("http://").trim_end_matches("/metrics");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
