//! Client TLS for the load generator: files to a rustls configuration, and the name in a certificate.
//!
//! Session resumption is off, so that a run with a connection per request pays for full handshakes.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use x509_parser::extensions::GeneralName;

use crate::Server;

/// All that is needed to open a connection.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// `host:port`, as the Host header has it.
    pub(crate) authority: String,
    pub(crate) name: ServerName<'static>,
    pub(crate) config: Arc<ClientConfig>,
}

impl Peer {
    /// Resolves the address and reads the certificate files.
    pub(crate) fn new(server: &Server) -> anyhow::Result<Self> {
        let Some(authority) = server.url.strip_prefix("https://") else {
            bail!("`{}` does not begin with https://", server.url);
        };
        let authority = authority.trim_end_matches('/').to_owned();
        let Some((host, _)) = authority.rsplit_once(':') else {
            bail!("`{}` names no port", server.url);
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = authority
            .to_socket_addrs()
            .with_context(|| format!("resolving `{authority}`"))?
            // Servers on this machine listen on IPv4 unless told otherwise.
            .min_by_key(SocketAddr::is_ipv6)
            .with_context(|| format!("`{authority}` has no address"))?;
        Ok(Self { address, name: ServerName::try_from(host.to_owned())?, authority, config: Arc::new(client_config(server)?) })
    }
}

fn client_config(server: &Server) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&server.ca)? {
        roots.add(certificate)?;
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match (&server.cert, &server.key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading the key `{}`", key.display()))?;
            builder.with_client_auth_cert(certificates(cert)?, key)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("reading certificates from `{}`", path.display()))
}

/// The name by which a machine certificate introduces its holder: its first DNS name, which is what servers check
/// names against; where there is none, the common name.
pub(crate) fn name_in_certificate(path: &Path) -> anyhow::Result<String> {
    let chain = certificates(path)?;
    let leaf = chain.first().context("the file holds no certificate")?;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf)?;
    let names = leaf.subject_alternative_name()?;
    let dns = names.into_iter().flat_map(|extension| &extension.value.general_names).find_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let common = leaf.subject().iter_common_name().find_map(|name| name.as_str().ok());
    dns.or(common).map(str::to_owned).with_context(|| format!("`{}` carries no name", path.display()))
}
