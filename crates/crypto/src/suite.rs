//! The contract that every root of trust keeps, as tests. A root's own tests call [`check`] with two different roots.

use crate::{KeyRing, RootError, RootOfTrust};
use claviger_domain::{SecretBytes, Timestamp};
use claviger_ports::Sealed;

/// Checks `root` against the contract of [`RootOfTrust`]; `other` is another root of the same kind.
///
/// # Panics
/// When the contract is broken; the message says which sentence of it.
pub async fn check(root: &dyn RootOfTrust, other: &dyn RootOfTrust) {
    assert_ne!(root.name(), other.name(), "two roots have two names");
    assert!(!root.name().is_empty() && !root.promise().is_empty(), "a root has a name and a promise");
    returns_what_was_wrapped(root).await;
    refuses_what_it_did_not_wrap(root, other).await;
    carries_a_key_ring(root, other).await;
}

async fn wrapped(root: &dyn RootOfTrust, context: &[u8], key: &[u8]) -> Sealed {
    root.wrap(context, &SecretBytes::new(key.to_vec())).await.expect("a root in good health wraps")
}

fn is_not_authentic(answer: &Result<SecretBytes, RootError>) -> bool {
    matches!(answer, Err(RootError::NotAuthentic))
}

async fn returns_what_was_wrapped(root: &dyn RootOfTrust) {
    for (context, key) in [(&b"context"[..], [7; 32]), (b"", [0; 32]), (&[0xff; 300], [255; 32])] {
        let sealed = wrapped(root, context, &key).await;
        let opened = root.unwrap(context, &sealed).await.expect("a root unwraps what it wrapped");
        assert_eq!(opened.expose(), key, "a root returns the key it was given");
        let is_visible = sealed.0.windows(key.len()).any(|w| w == key);
        assert!(!is_visible, "a wrapped key is not readable");
    }
    let (a, b) = (wrapped(root, b"c", &[1; 32]).await, wrapped(root, b"c", &[1; 32]).await);
    assert_ne!(a, b, "wrapping the same key twice does not show that it is the same");
}

async fn refuses_what_it_did_not_wrap(root: &dyn RootOfTrust, other: &dyn RootOfTrust) {
    let sealed = wrapped(root, b"context", &[7; 32]).await;
    for context in [&b"Context"[..], b"", b"context ", b"contex"] {
        assert!(is_not_authentic(&root.unwrap(context, &sealed).await), "a wrapped key is bound to its context");
    }
    for at in 0..sealed.0.len() {
        let mut altered = sealed.clone();
        altered.0[at] ^= 0x10;
        assert!(is_not_authentic(&root.unwrap(b"context", &altered).await), "an altered byte {at} is noticed");
    }
    for len in 0..sealed.0.len() {
        let cut = Sealed(sealed.0[..len].into());
        assert!(is_not_authentic(&root.unwrap(b"context", &cut).await), "a cut at {len} is noticed");
    }
    let foreign = wrapped(other, b"context", &[7; 32]).await;
    assert!(is_not_authentic(&root.unwrap(b"context", &foreign).await), "another root's wrapping is refused");
}

async fn carries_a_key_ring(root: &dyn RootOfTrust, other: &dyn RootOfTrust) {
    let (ring, rows) = KeyRing::create(&[root, other], Timestamp(1)).await.expect("two roots wrap a barrier key");
    for one in [root, other] {
        let opened = KeyRing::open(&rows, &[one]).await.expect("either root opens the store alone");
        assert_eq!(opened.audit_seed().expose(), ring.audit_seed().expose(), "both give the same keys");
    }
}
