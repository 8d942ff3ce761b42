//! The floor of the bench: stock axum over tokio-rustls with mutual TLS, answering every request
//! with one static JSON body of a chosen size.
//!
//! It is what a server can do on this machine when it does nothing, so it deliberately has no
//! Claviger crate in it and no tuning that axum's own examples do not have. It makes a certificate
//! authority of its own at each start, and is of no use outside the bench.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Writes `ca.pem`, `client.pem` and `client.key` into `dir`, says `ready` with its URL on standard
/// output, and then answers every request with a body of `size` bytes (at least 2).
///
/// # Errors
/// A folder that cannot be written, or a listener that fails. It does not return otherwise.
pub async fn run(listener: TcpListener, size: usize, dir: &Path) -> anyhow::Result<()> {
    let tls = make_authority(dir)?;
    println!("ready https://localhost:{}", listener.local_addr()?.port());
    let tls = TlsAcceptor::from(Arc::new(tls));
    let router = router(size);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, tls.clone(), router.clone()));
    }
}

/// Microseconds that one ECDSA signature with P-256 takes the bare library, over a message of 32 bytes.
///
/// # Errors
/// Only when the library fails.
pub fn sign_for(seconds: f64) -> anyhow::Result<f64> {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let failed = |_| anyhow::anyhow!("the library made no signature");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
    let random = aws_lc_rs::rand::SystemRandom::new();
    let begun = std::time::Instant::now();
    let mut signed = 0u32;
    while begun.elapsed().as_secs_f64() < seconds {
        for _ in 0..64 {
            pair.sign(&random, &[7; 32]).map_err(failed)?;
        }
        signed += 64;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(signed))
}

/// One static answer on every path.
fn router(size: usize) -> Router {
    let body = static_body(size);
    Router::new().fallback(move || {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    })
}

/// A JSON string of exactly `size` bytes, quotes included.
fn static_body(size: usize) -> Bytes {
    let filling = "x".repeat(size.saturating_sub(2));
    Bytes::from(format!("\"{filling}\""))
}

/// Serves one connection. Failures of a single connection are the load generator's to report.
async fn connection(stream: TcpStream, tls: TlsAcceptor, router: Router) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let service = TowerToHyperService::new(router);
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// Makes a fresh authority, writes what a client needs into `dir`, and returns a server
/// configuration that demands and verifies client certificates of that authority.
fn make_authority(dir: &Path) -> anyhow::Result<ServerConfig> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating `{}`", dir.display()))?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "bench floor authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let (server, server_key) = issue(&authority, "localhost", ExtendedKeyUsagePurpose::ServerAuth)?;
    let (client, client_key) = issue(&authority, "bench-client", ExtendedKeyUsagePurpose::ClientAuth)?;
    std::fs::write(dir.join("ca.pem"), authority.pem())?;
    std::fs::write(dir.join("client.pem"), client.pem())?;
    std::fs::write(dir.join("client.key"), client_key.serialize_pem())?;
    server_config(
        authority.der().clone(),
        server.der().clone(),
        PrivateKeyDer::try_from(server_key.serialize_der()).map_err(anyhow::Error::msg)?,
    )
}

fn issue(
    authority: &CertifiedIssuer<'_, KeyPair>,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
) -> anyhow::Result<(rcgen::Certificate, KeyPair)> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages.push(usage);
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, authority)?, key))
}

fn server_config(
    authority: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let mut config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_size_asked_for() {
        for size in [2, 3, 512, 4096] {
            assert_eq!(static_body(size).len(), size);
        }
    }

    #[test]
    fn the_floor_trusts_only_the_authority_it_made() {
        let dir = std::env::temp_dir().join(format!("xtask-floor-{}", std::process::id()));
        let config = make_authority(&dir);
        let written = ["ca.pem", "client.pem", "client.key"].map(|name| dir.join(name).is_file());
        let _ = std::fs::remove_dir_all(&dir);
        assert!(config.is_ok());
        assert_eq!(written, [true; 3]);
    }
}
