//! What is known of a connection for as long as it is open.

use std::any::{Any, TypeId};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;

/// A client's connection. Shared by its requests.
pub struct Connection {
    /// The client's address.
    pub peer: SocketAddr,
    /// The name of the listener that accepted it.
    pub listener: Arc<str>,
    /// What the TLS handshake found; `None` on a plain listener.
    pub tls: Option<TlsFacts>,
    notes: Mutex<Vec<(TypeId, Arc<dyn Any + Send + Sync>)>>,
}

/// What a TLS handshake found out.
#[derive(Debug, Clone, Default)]
pub struct TlsFacts {
    /// The client's certificates, its own first; empty when it sent none. The client has proven that it holds the key
    /// of the first (in this handshake, or in the one that this session resumes). **Nothing else is verified**: not the
    /// chain, the names or the dates.
    pub peer_certificates: Arc<[CertificateDer<'static>]>,
    /// The server name that the client asked for.
    pub server_name: Option<Box<str>>,
    /// Protocol version as on the wire: 0x0303 is TLS 1.2, 0x0304 is TLS 1.3.
    pub version: u16,
    /// Cipher suite as on the wire.
    pub cipher_suite: u16,
    /// Whether an earlier session was resumed; the certificates are then those of that session, from its ticket.
    pub resumed: bool,
    /// The application protocol agreed on.
    pub alpn: Option<Box<[u8]>>,
}

impl Connection {
    /// A connection as accepted.
    pub fn new(peer: SocketAddr, listener: Arc<str>, tls: Option<TlsFacts>) -> Arc<Self> {
        Arc::new(Self { peer, listener, tls, notes: Mutex::new(Vec::new()) })
    }

    /// The client's certificates; none on a plain connection.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.as_ref().map_or(&[], |tls| &tls.peer_certificates)
    }

    /// What [`Connection::keep`] last kept of this type, such as a verified caller.
    pub fn kept<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let notes = self.notes.lock();
        let (_, note) = notes.iter().find(|(kind, _)| *kind == TypeId::of::<T>())?;
        note.clone().downcast().ok()
    }

    /// Keeps one value per type for later requests of the connection, in place of an earlier one.
    pub fn keep<T: Any + Send + Sync>(&self, value: Arc<T>) {
        let kind = TypeId::of::<T>();
        let mut notes = self.notes.lock();
        match notes.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, note)) => *note = value,
            None => notes.push((kind, value)),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("listener", &self.listener)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// The block of addresses that counts as one client: an IPv6 customer has at least a /64.
pub(crate) fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_value_is_found_by_its_type_and_replaced() {
        let connection = Connection::new(([127, 0, 0, 1], 1).into(), "test".into(), None);
        assert!(connection.kept::<u32>().is_none());
        connection.keep(Arc::new(1_u32));
        connection.keep(Arc::new("text"));
        connection.keep(Arc::new(2_u32));
        assert_eq!(connection.kept::<u32>().as_deref(), Some(&2));
        assert_eq!(connection.kept::<&str>().as_deref(), Some(&"text"));
    }
}
