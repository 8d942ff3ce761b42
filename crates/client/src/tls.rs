//! TLS as the client speaks it: version 1.3 or 1.2, the hybrid with ML-KEM first, no roots but the given ones.

use crate::config::{Config, ConfigError, Credentials};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// The TLS configuration for this server and caller.
///
/// # Errors
/// [`ConfigError::Tls`] when certificate, key or roots do not fit together.
pub(crate) fn client_config(config: &Config) -> Result<ClientConfig, ConfigError> {
    let bad = |what: &str, e: rustls::Error| ConfigError::Tls(format!("{what}: {e}"));
    let mut roots = RootCertStore::empty();
    for root in &config.roots {
        roots.add(root.clone()).map_err(|e| bad("CLAVIGER_CA", e))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("TLS", e))?
        .with_root_certificates(roots);
    let mut tls = match &config.credentials {
        Credentials::Certificate { chain, key, .. } => {
            builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|e| bad("CLAVIGER_CERT and CLAVIGER_KEY", e))?
        }
        Credentials::Nothing | Credentials::Token(_) | Credentials::Session(_) => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Connections are kept alive; a resumed one would only keep session secrets in memory.
    tls.resumption = Resumption::disabled();
    Ok(tls)
}

/// The TLS configuration for a server that these roots vouch for, without a certificate of one's own.
pub(crate) fn with_roots(certificates: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold what rustls does not take.
    roots.add_parsable_certificates(certificates);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions()?;
    let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.resumption = Resumption::disabled();
    Ok(tls)
}

/// AES-GCM and ChaCha20-Poly1305 with forward secrecy; what else the provider has is not offered.
fn provider() -> CryptoProvider {
    use aws_lc_rs::{cipher_suite as suite, kx_group as kx};
    CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![kx::X25519MLKEM768, kx::X25519, kx::SECP256R1, kx::SECP384R1],
        ..aws_lc_rs::default_provider()
    }
}
