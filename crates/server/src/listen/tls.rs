//! The server's side of TLS.
//!
//! Client certificates are **asked for, never required and never judged here** (Knox contract §1): the handshake proves
//! only that the client holds the key of the certificate it sent. Chains, names and dates are for the authentication
//! methods, so that a bad certificate is an answer and not a broken connection.
//!
//! # Resumption
//!
//! A resumed session brings the client's certificates along in its ticket, which only this process can read; the client
//! shows that it holds the session's secret, not the certificate's key once more. Whoever verifies certificates must do
//! so for every connection, resumed or not. Tickets live for 6 to 12 hours, survive a change of the server's
//! certificate, and do not survive the process.
//!
//! # Certificates that cannot be parsed
//!
//! webpki does not take all that other servers take (version 1, unknown critical extensions). Possession is then proven
//! with the public key found by its place in the certificate. When there is none either, or of a kind that the provider
//! does not verify (RSA below 2048 bits, for one), possession cannot be proven and the handshake fails.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ProducesTickets;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, HandshakeKind, ServerConfig, ServerConnection, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer, UnixTime};

use crate::http::TlsFacts;

/// The server's certificate chain, its own first, with the key.
#[derive(Debug)]
pub struct Identity {
    /// Certificates as sent.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first.
    pub key: PrivateKeyDer<'static>,
}

/// Which application protocols are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2 and HTTP/1.1.
    Http2AndHttp1,
    /// HTTP/1.1 only.
    Http1,
}

/// Why the server cannot offer TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file is at fault.
    #[error("reading the server certificate: {0}")]
    Certificate(#[source] rustls_pki_types::pem::Error),
    /// The certificate file holds none.
    #[error("no certificate in the server certificate file")]
    NoCertificate,
    /// The key file is at fault.
    #[error("reading the server key: {0}")]
    Key(#[source] rustls_pki_types::pem::Error),
    /// Certificate and key do not go together, or the provider does not take them.
    #[error("using the server certificate and key: {0}")]
    Unusable(#[source] Error),
}

/// The TLS configuration in use, which can be changed while connections are open. Clones share it.
///
/// # Guarantees
///
/// A failed [`TlsHandle::replace`] changes nothing; open connections keep what they began with.
#[derive(Clone)]
pub struct TlsHandle(Arc<Shared>);

struct Shared {
    protocols: Protocols,
    tickets: Arc<dyn ProducesTickets>,
    current: RwLock<Arc<ServerConfig>>,
}

impl Identity {
    /// Reads a chain and a key in PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError::Certificate`], [`TlsError::NoCertificate`] or [`TlsError::Key`]; never with a part of the key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(TlsError::Certificate)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
        Ok(Self { chain, key })
    }
}

impl TlsHandle {
    /// A configuration with this identity.
    ///
    /// # Errors
    ///
    /// [`TlsError::Unusable`]
    pub fn new(identity: Identity, protocols: Protocols) -> Result<Self, TlsError> {
        let tickets = aws_lc_rs::Ticketer::new().map_err(TlsError::Unusable)?;
        let config = config(identity, protocols, tickets.clone())?;
        Ok(Self(Arc::new(Shared { protocols, tickets, current: RwLock::new(config) })))
    }

    /// Uses another identity from the next connection on.
    ///
    /// # Errors
    ///
    /// [`TlsError::Unusable`]; the earlier identity stays in use.
    pub fn replace(&self, identity: Identity) -> Result<(), TlsError> {
        let config = config(identity, self.0.protocols, self.0.tickets.clone())?;
        *self.0.current.write() = config;
        Ok(())
    }

    /// The configuration for a new connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.current.read().clone()
    }
}

fn config(identity: Identity, protocols: Protocols, tickets: Arc<dyn ProducesTickets>) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(provider());
    let verifier = AnyClient { algorithms: provider.signature_verification_algorithms };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain, identity.key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = match protocols {
        Protocols::Http2AndHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocols::Http1 => vec![b"http/1.1".to_vec()],
    };
    config.ticketer = tickets;
    // One ticket holds the client's whole chain; the default of two doubles what every handshake sends.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// aws-lc-rs, preferring the hybrid with ML-KEM for key exchange.
fn provider() -> CryptoProvider {
    let kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() }
}

/// What the handshake found out.
pub(super) fn facts(session: &ServerConnection) -> TlsFacts {
    TlsFacts {
        peer_certificates: session.peer_certificates().unwrap_or_default().into(),
        server_name: session.server_name().map(Into::into),
        version: session.protocol_version().map_or(0, u16::from),
        cipher_suite: session.negotiated_cipher_suite().map_or(0, |suite| suite.suite().into()),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        alpn: session.alpn_protocol().map(Into::into),
    }
}

/// Takes every certificate whose key the client proves to hold.
#[derive(Debug)]
struct AnyClient {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClient {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Empty: a Go client keeps its certificate to itself when the list is not empty and lacks its issuer.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(&self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: UnixTime) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verify_tls12_signature(message, certificate, signed, &self.algorithms) {
            Err(Error::InvalidCertificate(error)) if is_unparsed(&error) => self.verify_raw_tls12(message, certificate, signed),
            result => result,
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verify_tls13_signature(message, certificate, signed, &self.algorithms) {
            Err(Error::InvalidCertificate(error)) if is_unparsed(&error) => {
                let key = public_key(certificate).ok_or(CertificateError::BadEncoding)?;
                verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
            }
            result => result,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl AnyClient {
    /// The raw-key check that rustls has for TLS 1.3 only. In 1.2 a scheme does not name its curve, so each algorithm of
    /// the scheme is tried on which the key's own identifier fits.
    fn verify_raw_tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let info = public_key(certificate).ok_or(CertificateError::BadEncoding)?;
        let (identifier, key) = key_parts(&info).ok_or(CertificateError::BadEncoding)?;
        let (_, algorithms) =
            self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme).ok_or(CertificateError::BadSignature)?;
        let proven = algorithms.iter().any(|algorithm| {
            let fits = algorithm.public_key_alg_id().as_ref() == identifier;
            fits && algorithm.verify_signature(key, message, signed.signature()).is_ok()
        });
        if proven { Ok(HandshakeSignatureValid::assertion()) } else { Err(CertificateError::BadSignature.into()) }
    }
}

/// Whether an error says that the certificate could not be read, rather than that a signature is wrong.
fn is_unparsed(error: &CertificateError) -> bool {
    !matches!(error, CertificateError::BadSignature | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. })
}

// Just enough DER (X.690) to find a key by its place.

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const EXPLICIT_0: u8 = 0xa0;

/// One element: its tag, its content, and all of it.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// Takes the element at the start of `input`.
fn element<'a>(input: &mut &'a [u8]) -> Option<Element<'a>> {
    let all = *input;
    let (&tag, rest) = all.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(Element { tag, content, whole: &all[..all.len() - rest.len()] })
}

fn sequence<'a>(input: &mut &'a [u8]) -> Option<Element<'a>> {
    element(input).filter(|element| element.tag == SEQUENCE)
}

/// The SubjectPublicKeyInfo of a certificate (RFC 5280 §4.1), found by its place.
fn public_key<'a>(certificate: &'a CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'a>> {
    let mut input: &[u8] = certificate;
    let mut fields = sequence(&mut sequence(&mut input)?.content)?.content;
    if fields.first() == Some(&EXPLICIT_0) {
        element(&mut fields)?;
    }
    let serial_algorithm_issuer_validity_subject = 5;
    for _ in 0..serial_algorithm_issuer_validity_subject {
        element(&mut fields)?;
    }
    Some(sequence(&mut fields)?.whole.into())
}

/// The algorithm identifier (without its outer tag) and the key of a SubjectPublicKeyInfo.
fn key_parts<'a>(info: &'a SubjectPublicKeyInfoDer<'_>) -> Option<(&'a [u8], &'a [u8])> {
    let mut fields = sequence(&mut info.as_ref())?.content;
    let identifier = sequence(&mut fields)?.content;
    let bits = element(&mut fields).filter(|element| element.tag == BIT_STRING)?;
    let (unused, key) = bits.content.split_first()?;
    (*unused == 0).then_some((identifier, key))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    use std::io;

    use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
    use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
    use rustls::sign::CertifiedKey;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    /// A self-signed certificate for `name`, with its key.
    pub(crate) fn identity(name: &str) -> Identity {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Identity { chain: vec![certificate.der().clone()], key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    /// What a client sends as its certificate and signs with, whether or not they go together.
    #[derive(Debug)]
    pub(crate) struct Shown(Option<Arc<CertifiedKey>>, pub(crate) Arc<parking_lot::Mutex<Option<usize>>>);

    impl Shown {
        pub(crate) fn nothing() -> Arc<Self> {
            Arc::new(Self(None, Arc::default()))
        }

        pub(crate) fn new(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Arc<Self> {
            let key = provider().key_provider.load_private_key(key).unwrap();
            Arc::new(Self(Some(Arc::new(CertifiedKey::new(vec![certificate], key))), Arc::default()))
        }
    }

    impl ResolvesClientCert for Shown {
        fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            *self.1.lock() = Some(hints.len());
            self.0.clone()
        }

        fn has_certs(&self) -> bool {
            self.0.is_some()
        }
    }

    /// A client that takes any server.
    pub(crate) fn client(shown: Arc<Shown>, version: &'static SupportedProtocolVersion, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_client_cert_resolver(shown);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    #[derive(Debug)]
    struct AnyServer;

    impl ServerCertVerifier for AnyServer {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    }

    /// One connection that carries a byte each way; what the server found.
    async fn connect(handle: &TlsHandle, client: Arc<ClientConfig>) -> io::Result<TlsFacts> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = TlsAcceptor::from(handle.current());
        let serving = tokio::spawn(async move {
            let mut stream = acceptor.accept(far).await?;
            let facts = facts(stream.get_ref().1);
            stream.read_u8().await?;
            stream.write_u8(1).await?;
            stream.shutdown().await?;
            Ok(facts)
        });
        let name = ServerName::try_from("knox").unwrap();
        // With TLS 1.3 the client learns of a refusal only when it reads.
        let _ = async {
            let mut stream = TlsConnector::from(client).connect(name, near).await?;
            stream.write_u8(1).await?;
            stream.read_u8().await?;
            stream.read_u8().await
        }
        .await;
        serving.await.unwrap()
    }

    fn handle() -> TlsHandle {
        TlsHandle::new(identity("knox"), Protocols::Http2AndHttp1).unwrap()
    }

    /// A certificate of an unknown authority, with more said by `change`.
    fn stranger(
        algorithm: &'static rcgen::SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(vec!["machine".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        (certificate, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn has_unknown_critical_extension(params: &mut CertificateParams) {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    }

    #[tokio::test]
    async fn a_client_without_a_certificate_is_served_and_gets_no_hints() {
        for version in [&TLS12, &TLS13] {
            let shown = Shown::nothing();
            let facts = connect(&handle(), client(shown.clone(), version, &[b"h2", b"http/1.1"])).await.unwrap();
            assert!(facts.peer_certificates.is_empty());
            assert_eq!(facts.version, u16::from(version.version));
            assert_eq!(facts.server_name.as_deref(), Some("knox"));
            assert_eq!(facts.alpn.as_deref(), Some(&b"h2"[..]));
            assert_ne!(facts.cipher_suite, 0);
        }
    }

    #[tokio::test]
    async fn a_certificate_of_an_unknown_authority_is_taken_and_seen() {
        for version in [&TLS12, &TLS13] {
            for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
                let (certificate, key) = stranger(algorithm, |_| {});
                let shown = Shown::new(certificate.clone(), key);
                let facts = connect(&handle(), client(shown.clone(), version, &[])).await.unwrap();
                assert_eq!(&facts.peer_certificates[..], [certificate]);
                assert_eq!(*shown.1.lock(), Some(0), "the list of acceptable authorities must be empty");
                assert_eq!(facts.alpn, None);
            }
        }
    }

    #[tokio::test]
    async fn a_certificate_without_its_key_is_refused() {
        for version in [&TLS12, &TLS13] {
            for change in [|_: &mut CertificateParams| {}, has_unknown_critical_extension] {
                let (certificate, _) = stranger(&PKCS_ECDSA_P256_SHA256, change);
                let (_, other) = stranger(&PKCS_ECDSA_P256_SHA256, |_| {});
                let error = connect(&handle(), client(Shown::new(certificate, other), version, &[])).await.unwrap_err();
                assert!(error.to_string().contains("BadSignature"), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn a_certificate_that_webpki_cannot_read_is_taken_when_its_key_is_held() {
        for version in [&TLS12, &TLS13] {
            for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
                let (certificate, key) = stranger(algorithm, has_unknown_critical_extension);
                assert!(rustls::server::ParsedCertificate::try_from(&certificate).is_err(), "webpki reads it");
                let facts = connect(&handle(), client(Shown::new(certificate.clone(), key), version, &[])).await.unwrap();
                assert_eq!(&facts.peer_certificates[..], [certificate]);
            }
        }
    }

    #[tokio::test]
    async fn garbage_instead_of_a_certificate_proves_nothing_and_is_refused() {
        let (certificate, key) = stranger(&PKCS_ECDSA_P256_SHA256, |_| {});
        for garbage in [&b"garbage"[..], &certificate[..40], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            let shown = Shown::new(garbage.to_vec().into(), key.clone_key());
            let error = connect(&handle(), client(shown, &TLS13, &[])).await.unwrap_err();
            assert!(error.to_string().contains("BadEncoding"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_resumed_session_brings_the_certificates_along_even_after_a_new_identity() {
        for version in [&TLS12, &TLS13] {
            let handle = handle();
            let (certificate, key) = stranger(&PKCS_ECDSA_P256_SHA256, |_| {});
            let client = client(Shown::new(certificate.clone(), key), version, &[]);
            assert!(!connect(&handle, client.clone()).await.unwrap().resumed);
            handle.replace(identity("new")).unwrap();
            let facts = connect(&handle, client).await.unwrap();
            assert!(facts.resumed);
            assert_eq!(&facts.peer_certificates[..], [certificate]);
        }
    }

    #[tokio::test]
    async fn a_new_identity_is_shown_to_new_connections_and_a_bad_one_changes_nothing() {
        let handle = handle();
        let new = identity("new");
        let mismatched = Identity { chain: new.chain.clone(), key: identity("other").key };
        assert!(matches!(handle.replace(mismatched), Err(TlsError::Unusable(_))));
        let mut roots = RootCertStore::empty();
        roots.add(new.chain[0].clone()).unwrap();
        let provider = Arc::new(provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let config = Arc::new(
            ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_webpki_verifier(verifier)
                .with_no_client_auth(),
        );
        let hello = |handle: TlsHandle, config: Arc<ClientConfig>| async move {
            let (near, far) = tokio::io::duplex(1 << 16);
            let acceptor = TlsAcceptor::from(handle.current());
            tokio::spawn(async move { acceptor.accept(far).await.map(drop) });
            TlsConnector::from(config).connect(ServerName::try_from("new").unwrap(), near).await.map(drop)
        };
        assert!(hello(handle.clone(), config.clone()).await.is_err());
        handle.replace(new).unwrap();
        hello(handle, config).await.unwrap();
    }

    #[tokio::test]
    async fn the_hybrid_key_exchange_is_preferred() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = TlsAcceptor::from(handle().current());
        let serving = tokio::spawn(async move {
            let stream = acceptor.accept(far).await.unwrap();
            stream.get_ref().1.negotiated_key_exchange_group().unwrap().name()
        });
        let connector = TlsConnector::from(client(Shown::nothing(), &TLS13, &[]));
        let _stream = connector.connect(ServerName::try_from("knox").unwrap(), near).await.unwrap();
        assert_eq!(serving.await.unwrap(), rustls::NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn an_identity_is_read_from_pem_and_errors_hold_nothing_of_the_key() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["knox".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let identity = Identity::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        TlsHandle::new(identity, Protocols::Http1).unwrap();
        assert!(matches!(Identity::from_pem(b"", b""), Err(TlsError::NoCertificate)));
        let broken = key.serialize_pem().replace("-----END", "----");
        let error = Identity::from_pem(pem.as_bytes(), broken.as_bytes()).unwrap_err();
        let secret = key.serialize_pem().lines().nth(1).unwrap()[..16].to_owned();
        assert!(!format!("{error} {error:?}").contains(&secret));
    }
}
