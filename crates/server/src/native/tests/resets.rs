//! The surface behind a real HTTP/2 connection whose client takes its requests back.

use super::*;
use crate::http::{Front, Limits, Refusal, Service, serve_http2};
use claviger_store::SqlStore;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

struct Surface(World);

impl Service for Surface {
    fn body_limit(&self, head: &Head) -> usize {
        self.0.native.body_limit(head)
    }

    async fn call(&self, request: Request) -> Response {
        self.0.native.handle(request).await
    }

    fn refused(&self, _: &Connection, why: Refusal) -> Response {
        why.answer()
    }
}

fn creation(id: &str) -> http::Request<Full<Bytes>> {
    http::Request::post("https://claviger/api/v1/keys")
        .header("Authorization", format!("Bearer {ALICE}"))
        .header("Content-Type", "application/json")
        .body(Full::from(format!(r#"{{"id":"{id}","data":"{}"}}"#, base64(b"one"))))
        .unwrap()
}

#[tokio::test]
async fn no_key_is_made_without_a_record_when_its_stream_is_reset() {
    const KEYS: u32 = 100;
    let folder = std::env::temp_dir().join(format!("claviger-resets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    // A store on disk, whose commits take a while.
    let store = SqlStore::open_sqlite(folder.join("store.db")).await.unwrap();
    let front = Front::new(Arc::new(Surface(World::on(Arc::new(store)).await)), Limits::default(), Shutdown::new());
    let connection = Connection::new(([10, 0, 0, 1], 1).into(), "test".into(), None);
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(serve_http2(far, connection, front.clone()));
    let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
    tokio::spawn(driver);
    for n in 0..KEYS {
        sender.ready().await.unwrap();
        let request = sender.send_request(creation(&format!("team/{n}")));
        let end = Instant::now() + Duration::from_micros(50) * n;
        let patience = async {
            while Instant::now() < end {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = request => {}
            () = patience => {}
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let world = &front.service.0;
    let recorded: BTreeSet<_> = world.records().into_iter().filter(|k| k.action == "create").flat_map(|k| k.keys).collect();
    let mut made = BTreeSet::new();
    for id in (0..KEYS).map(|n| format!("team/{n}")) {
        if world.get(ALICE, &format!("/keys/{id}")).await.status == 200 {
            made.insert(id);
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(!made.is_empty());
    assert_eq!(made, recorded);
}
