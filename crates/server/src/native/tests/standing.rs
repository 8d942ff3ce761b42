//! Streams and the credential they were opened with.

use super::watching::Stream;
use super::*;
use crate::http::TlsFacts;
use claviger_authn::{DenialLimits, MachineCertificates, MachineNames, Roots, Verifiers};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use std::time::Duration;
use time::OffsetDateTime;

/// What a machine's certificate lives from the test's beginning.
const LIFE: i64 = 22;

/// The surface behind certificates, on a world's engine.
struct Site {
    world: World,
    native: Native,
    callers: Arc<Callers>,
    certificate: rustls_pki_types::CertificateDer<'static>,
}

fn verifiers(ca: &CertifiedIssuer<'static, KeyPair>, generation: u64) -> Verifiers {
    let roots = Roots::from_pem("test", ca.pem().as_bytes()).unwrap();
    Verifiers { machines: Some(MachineCertificates::new(roots)), services: None, break_glass: None, generation }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Site {
    async fn new() -> Self {
        let world = World::new().await;
        world.create("team/a", "x").await;
        world.grant("team/", "machine:host1", Preset::Read).await;
        let ca = authority();
        let mut params = CertificateParams::new(vec!["host1".to_owned()]).unwrap();
        let now = OffsetDateTime::from_unix_timestamp_nanos(world.clock.now().0.into()).unwrap();
        (params.not_before, params.not_after) = (now, now + time::Duration::seconds(LIFE));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &ca).unwrap().der().clone();
        let (names, limits) = (MachineNames::default(), DenialLimits::default());
        let callers = Arc::new(Callers::new(verifiers(&ca, 1), names, Some(Arc::new(tokens())), limits, world.clock.clone()));
        let native = Native::new(NativeParts {
            engine: world.engine.clone(),
            callers: callers.clone(),
            people: nobody(world.clock.clone()),
            back: world.back.clone(),
            clock: world.clock.clone(),
            max_value: 1024,
            sharing: Default::default(),
            watches_per_identity: 8,
            shutdown: world.shutdown.clone(),
        });
        Self { world, native, callers, certificate }
    }

    fn connection(&self) -> Arc<Connection> {
        let tls = TlsFacts { peer_certificates: [self.certificate.clone()].into(), ..TlsFacts::default() };
        Connection::new(([10, 9, 9, 9], 1).into(), "test".into(), Some(tls))
    }

    async fn send(&self, connection: Arc<Connection>, target: &str, headers: &[(&str, &str)]) -> Response {
        let head = Head::build("GET", &format!("/api/v1{target}"), headers).unwrap();
        self.native.handle(Request { head, body: RequestBody::Complete(Bytes::new()), connection }).await
    }

    /// A live stream of the machine's, with heartbeats as rare as they may be.
    async fn stream(&self) -> Stream {
        let mut stream = Stream::of(self.send(self.connection(), "/watch?id=team/a&heartbeat=300", &[]).await);
        assert_eq!(stream.told().await, "ready");
        stream
    }

    fn reason(&self) -> String {
        self.world.records().pop().unwrap().reason
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_on_a_certificate_that_has_ended_whoever_else_fails_from_that_address() {
    let site = Site::new().await;
    let mut stream = site.stream().await;
    site.world.must(200, ALICE, "PATCH", "/keys/team/a", r#"{"description":"1"}"#).await;
    assert_eq!(stream.told().await, "changed team/a");
    site.world.clock.forward(LIFE + 1);
    let fail = || site.send(site.connection(), "/whoami", &[("Authorization", "Bearer wrong")]);
    while fail().await.status != 429 {}
    site.world.must(200, ALICE, "PATCH", "/keys/team/a", r#"{"description":"2"}"#).await;
    assert!(stream.next().await.is_none());
    assert!(site.reason().starts_with("the stream ends: "));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_certificate_does_and_not_at_the_next_heartbeat() {
    let site = Site::new().await;
    let mut stream = site.stream().await;
    let begun = tokio::time::Instant::now();
    let (ended, ()) = tokio::join!(stream.next(), async {
        for _ in 0..=LIFE {
            tokio::time::sleep(Duration::from_millis(999)).await;
            site.world.clock.forward(1);
        }
    });
    assert!(ended.is_none());
    assert!(begun.elapsed().as_secs() <= 24, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_the_roots_that_proved_it_are_taken_away() {
    let site = Site::new().await;
    let mut stream = site.stream().await;
    let begun = tokio::time::Instant::now();
    let (ended, ()) = tokio::join!(stream.next(), async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        site.callers.replace_verifiers(verifiers(&authority(), 2));
    });
    assert!(ended.is_none());
    assert_eq!(begun.elapsed().as_millis(), 5);
}

#[tokio::test(start_paused = true)]
async fn failures_of_others_do_not_end_a_stream_that_is_still_proven() {
    let site = Site::new().await;
    let mut stream = site.stream().await;
    let fail = || site.send(site.connection(), "/whoami", &[("Authorization", "Bearer wrong")]);
    while fail().await.status != 429 {}
    site.world.must(200, ALICE, "PATCH", "/keys/team/a", r#"{"description":"1"}"#).await;
    assert_eq!(stream.told().await, "changed team/a");
}
