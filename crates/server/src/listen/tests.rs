//! Whole servers over the loopback interface.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream as Client;

use bytes::Bytes;
use futures::StreamExt;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::ServerName;

use super::tls::tests::{Shown, client, identity};
use super::*;
use crate::http::{Head, Refusal, Request, Response};

/// Tells what the front knows of a connection; `/slow` takes half a second, `/stream` does not end by itself.
#[derive(Default)]
struct Tells {
    failed: AtomicUsize,
    turned_away: AtomicUsize,
}

impl Service for Tells {
    fn body_limit(&self, _: &Head) -> usize {
        100
    }

    async fn call(&self, request: Request) -> Response {
        match &request.head.path[..] {
            b"/slow" => sleep(Duration::from_millis(500)).await,
            b"/hang" => sleep(Duration::from_secs(3600)).await,
            b"/stream" => {
                let parts = futures::stream::iter([Bytes::from_static(b"part")]).chain(futures::stream::pending());
                return Response::new(200).with_stream(parts);
            }
            _ => {}
        }
        let connection = &request.connection;
        Response::new(200).with_body(format!(
            "{} {:?} certificates={} http={:?}",
            connection.listener,
            connection.peer.ip(),
            connection.peer_certificates().len(),
            request.head.version
        ))
    }

    fn refused(&self, _: &Connection, why: Refusal) -> Response {
        why.answer()
    }

    fn handshake_failed(&self, _: SocketAddr, _: &io::Error) {
        self.failed.fetch_add(1, Ordering::SeqCst);
    }

    fn turned_away(&self, _: SocketAddr) {
        self.turned_away.fetch_add(1, Ordering::SeqCst);
    }
}

struct Server {
    address: SocketAddr,
    service: Arc<Tells>,
    shutdown: Shutdown,
    serving: Serving,
}

fn start(security: Security, workers: usize, limits: Limits) -> Server {
    let config = ListenerConfig { name: "test".into(), address: ([127, 0, 0, 1], 0).into(), security };
    let listener = Listener::bind(&config, workers).unwrap();
    let address = listener.address();
    let tls = TlsHandle::new(identity("knox"), Protocols::Http2AndHttp1).unwrap();
    let (service, shutdown) = (Arc::new(Tells::default()), Shutdown::new());
    let serving = serve(vec![listener], Some(tls), service.clone(), limits, shutdown.clone()).unwrap();
    Server { address, service, shutdown, serving }
}

/// Asks for a path and reads to the end of the connection.
fn ask(stream: &mut (impl Read + Write), path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn eventually(what: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(std::time::Instant::now() < end, "did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn plain_connections_are_served_on_every_worker() {
    let server = start(Security::Plain, 3, Limits::default());
    for _ in 0..20 {
        let answer = ask(&mut Client::connect(server.address).unwrap(), "/").unwrap();
        assert!(answer.ends_with("test 127.0.0.1 certificates=0 http=Http11"), "{answer}");
    }
    eventually(|| server.serving.connections() == 0);
    server.shutdown.start();
    server.serving.join();
    assert!(Client::connect(server.address).is_err());
}

#[test]
fn tls_connections_show_their_certificates_to_the_service() {
    let server = start(Security::Tls, 2, Limits::default());
    let machine = identity("machine");
    let with = Shown::new(machine.chain[0].clone(), machine.key.clone_key());
    for version in [&TLS12, &TLS13] {
        for (shown, count) in [(Shown::nothing(), 0), (with.clone(), 1)] {
            let config = client(shown, version, &[b"http/1.1"]);
            let session = rustls::ClientConnection::new(config, ServerName::try_from("knox").unwrap()).unwrap();
            let mut stream = rustls::StreamOwned::new(session, Client::connect(server.address).unwrap());
            let answer = ask(&mut stream, "/").unwrap();
            assert!(answer.ends_with(&format!("certificates={count} http=Http11")), "{answer}");
        }
    }
}

#[tokio::test]
async fn http_2_is_spoken_when_the_client_offers_it() {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let server = start(Security::Tls, 1, Limits::default());
    let connector = tokio_rustls::TlsConnector::from(client(Shown::nothing(), &TLS13, &[b"h2"]));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let stream = connector.connect(ServerName::try_from("knox").unwrap(), stream).await.unwrap();
    let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(driver);
    let request = http::Request::builder().uri("https://knox/").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(answer, "test 127.0.0.1 certificates=0 http=Http2");
    // The connection ends by the server's GOAWAY, not by an error.
    server.shutdown.start();
    driver.await.unwrap().unwrap();
    tokio::task::spawn_blocking(|| server.serving.join()).await.unwrap();
}

#[test]
fn a_client_that_does_not_speak_tls_is_counted_and_harms_nobody() {
    let server = start(Security::Tls, 1, Limits { handshake_time: Duration::from_millis(200), ..Limits::default() });
    let mut plain = Client::connect(server.address).unwrap();
    let _ = ask(&mut plain, "/");
    eventually(|| server.service.failed.load(Ordering::SeqCst) == 1);
    let mut silent = Client::connect(server.address).unwrap();
    assert_eq!(silent.read(&mut [0; 8]).unwrap_or(0), 0);
    eventually(|| server.service.failed.load(Ordering::SeqCst) == 2);
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let server = start(Security::Plain, 2, Limits { connections_per_address: 2, ..Limits::default() });
    let _open = [Client::connect(server.address).unwrap(), Client::connect(server.address).unwrap()];
    eventually(|| server.serving.connections() == 2);
    let mut third = Client::connect(server.address).unwrap();
    assert_eq!(third.read(&mut [0; 8]).unwrap_or(0), 0);
    assert_eq!(server.service.turned_away.load(Ordering::SeqCst), 1);
    drop(_open);
    eventually(|| server.serving.connections() == 0);
    assert!(ask(&mut Client::connect(server.address).unwrap(), "/").unwrap().contains("200 OK"));
}

#[test]
fn a_shutdown_answers_what_is_in_flight_and_ends_streams() {
    let server = start(Security::Plain, 2, Limits::default());
    let address = server.address;
    let asked = |path: &'static str| {
        std::thread::spawn(move || {
            let mut stream = Client::connect(address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })
    };
    let (slow, stream) = (asked("/slow"), asked("/stream"));
    eventually(|| server.serving.connections() == 2);
    std::thread::sleep(Duration::from_millis(100));
    server.shutdown.start();
    let started = std::time::Instant::now();
    server.serving.join();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(slow.join().unwrap().ends_with("http=Http11"));
    assert!(stream.join().unwrap().ends_with("4\r\npart\r\n0\r\n\r\n"));
}

#[test]
fn what_does_not_end_within_the_drain_time_is_dropped() {
    let server = start(Security::Plain, 1, Limits { drain_time: Duration::from_millis(100), ..Limits::default() });
    let mut stream = Client::connect(server.address).unwrap();
    write!(stream, "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    eventually(|| server.serving.connections() == 1);
    std::thread::sleep(Duration::from_millis(50));
    server.shutdown.start();
    server.serving.join();
    assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
}

#[test]
fn an_address_in_use_is_refused_although_workers_share_it() {
    let first = start(Security::Plain, 2, Limits::default());
    let config = ListenerConfig { name: "second".into(), address: first.address, security: Security::Plain };
    let error = Listener::bind(&config, 2).unwrap_err();
    assert!(matches!(&error, ListenError::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse), "{error}");
}

#[test]
fn a_tls_listener_without_a_certificate_is_refused() {
    let config = ListenerConfig { name: "api".into(), address: ([127, 0, 0, 1], 0).into(), security: Security::Tls };
    let listener = Listener::bind(&config, 1).unwrap();
    let result = serve(vec![listener], None, Arc::new(Tells::default()), Limits::default(), Shutdown::new());
    assert!(matches!(result, Err(ListenError::NoTls(name)) if &*name == "api"));
}
