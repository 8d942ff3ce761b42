//! Why a proof is refused, in the words that Knox's clients know where contract knox §5 gives them.

use claviger_domain::SpiffeIdError;
use thiserror::Error;

/// Why a caller's proof is refused. The texts are safe to answer with: they hold nothing that the caller did not send.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejection {
    /// A certificate is needed and none was presented.
    #[error("auth: No peer certs configured")]
    NoCertificate,
    /// The certificate does not lead to a trusted root.
    #[error("auth: failed to verify client's certificate: {0}")]
    Chain(#[from] ChainError),
    /// The certificate names other hosts.
    #[error("x509: certificate is valid for {valid_for}, not {claimed}")]
    OtherName {
        /// The name that was claimed.
        claimed: Box<str>,
        /// The names of the same kind that the certificate has.
        valid_for: Box<str>,
    },
    /// The certificate names no host of the kind that was claimed.
    #[error("x509: certificate is not valid for any names, but wanted to match {claimed}")]
    NoName {
        /// The name that was claimed.
        claimed: Box<str>,
    },
    /// No name was claimed, and the certificate has none that is one machine's.
    #[error("the certificate names no single machine; say which name you claim")]
    NoOwnName,
    /// No URI among the certificate's names.
    #[error("auth: no spiffe identity in certificate")]
    NoSpiffeId,
    /// Several URIs among the certificate's names.
    #[error("auth: more than one service identity specified in certificate")]
    ManySpiffeIds,
    /// The URI is of another scheme.
    #[error("auth: service identity was not a valid SPIFFE ID (bad prefix)")]
    NotSpiffe,
    /// The URI has no `/` after the trust domain.
    #[error("auth: service identity was not a valid SPIFFE ID (bad format)")]
    NoPath,
    /// The URI is acceptable to Knox and breaks the SPIFFE specification.
    #[error("the service identity is not a valid SPIFFE ID: {0}")]
    InvalidSpiffeId(SpiffeIdError),
    /// The certificate may sign others, so it identifies no workload (X509-SVID §4.3, §5.2).
    #[error("the certificate may sign certificates or revocation lists, so it identifies no workload")]
    MaySign,
    /// No user has this token.
    #[error("auth: unknown token")]
    UnknownToken,
    /// The session has expired, was ended, or is not this process's.
    #[error("auth: there is no such session: it has expired, was ended, or the server was restarted; log in again")]
    NoSession,
    /// The service that knows the token's user did not say who it is.
    #[error("{0}")]
    LookUp(Box<str>),
    /// No method fits the credential, or there is none.
    #[error("No matching authentication providers found")]
    NoProvider,
}

impl Rejection {
    /// A word for it in metrics and logs, from a closed set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Chain(ChainError::Expired | ChainError::NotYetValid) => "certificate_time",
            Self::Chain(_) => "certificate_chain",
            Self::OtherName { .. } | Self::NoName { .. } | Self::NoOwnName => "machine_name",
            Self::NoSpiffeId | Self::ManySpiffeIds | Self::NotSpiffe | Self::NoPath => "spiffe_id",
            Self::InvalidSpiffeId(_) | Self::MaySign => "svid",
            Self::UnknownToken => "token",
            Self::NoSession => "session",
            Self::LookUp(_) => "look_up",
            Self::NoProvider => "no_method",
        }
    }
}

/// Why a chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// The leaf, or one of the certificates sent with it, is no certificate that can be read.
    #[error("x509: malformed certificate")]
    Malformed,
    /// A certificate's time is over.
    #[error("x509: certificate has expired or is not yet valid: it has expired")]
    Expired,
    /// A certificate's time has not come.
    #[error("x509: certificate has expired or is not yet valid: it is not valid yet")]
    NotYetValid,
    /// No chain to a root.
    #[error("x509: certificate signed by unknown authority")]
    UnknownAuthority,
    /// No bundle for the trust domain that the certificate claims.
    #[error("x509: certificate signed by unknown authority: there is no bundle for the trust domain `{0}`")]
    UnknownTrustDomain(Box<str>),
    /// The certificate, or one above it, is not meant for clients.
    #[error("x509: certificate specifies an incompatible key usage")]
    WrongUsage,
    /// An authority's certificate in the place of a caller's.
    #[error("x509: a certificate authority's certificate identifies no caller")]
    AuthorityAsLeaf,
    /// A certificate in between that may not sign.
    #[error("x509: certificate is not authorized to sign other certificates")]
    MayNotSign,
    /// More certificates in between than one of them allows.
    #[error("x509: too many intermediates for path length constraint")]
    TooManyIntermediates,
    /// A name that a certificate above does not allow.
    #[error("x509: a root or intermediate certificate is not authorized to sign for this name")]
    NameConstraint,
    /// Signed with an algorithm that is not accepted, or with too small a key.
    #[error("x509: the certificate is signed with an algorithm that is not accepted")]
    Algorithm,
    /// Too many ways to try.
    #[error("x509: the certificates form too many paths to try")]
    TooComplex,
    /// An extension that must be understood and is not.
    #[error("x509: unhandled critical extension")]
    CriticalExtension,
}

impl From<webpki::Error> for ChainError {
    fn from(e: webpki::Error) -> Self {
        use webpki::Error as E;
        match e {
            E::CertExpired { .. } => Self::Expired,
            E::CertNotValidYet { .. } => Self::NotYetValid,
            E::RequiredEkuNotFoundContext(_) => Self::WrongUsage,
            E::CaUsedAsEndEntity => Self::AuthorityAsLeaf,
            E::EndEntityUsedAsCa => Self::MayNotSign,
            E::PathLenConstraintViolated => Self::TooManyIntermediates,
            E::NameConstraintViolation => Self::NameConstraint,
            // A signature that does not fit means that the authority of that name did not make it.
            E::UnknownIssuer | E::InvalidSignatureForPublicKey => Self::UnknownAuthority,
            E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::Algorithm,
            E::MaximumNameConstraintComparisonsExceeded
            | E::MaximumPathBuildCallsExceeded
            | E::MaximumPathDepthExceeded
            | E::MaximumSignatureChecksExceeded => Self::TooComplex,
            E::UnsupportedCriticalExtension => Self::CriticalExtension,
            _ => Self::Malformed,
        }
    }
}
