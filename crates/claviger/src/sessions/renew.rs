//! The session of one server, renewed when it is short or refused.

use super::{Held, Kept, look};
use crate::failure::Failure;
use claviger_client::oidc::Provider;
use claviger_client::{Address, Client, Config, Credentials, Renew};
use claviger_domain::Timestamp;
use claviger_wire::native::{CreateSession, rfc3339_to_unix};
use rustls_pki_types::CertificateDer;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// A session with less than this left is renewed before it is used, in seconds.
const SHORT: i64 = 60;

/// A server, and whom to trust there.
#[derive(Clone)]
pub(crate) struct Place {
    address: Address,
    roots: Vec<CertificateDer<'static>>,
    timeout: Duration,
}

impl Place {
    pub(crate) fn of(config: &Config) -> Self {
        Self { address: config.address.clone(), roots: config.roots.clone(), timeout: config.timeout }
    }

    /// How the server is called in the file.
    pub(crate) fn name(&self) -> String {
        self.address.to_string()
    }

    /// A client with this token, or with nothing.
    pub(crate) fn client(&self, token: Option<&str>) -> Result<Client, Failure> {
        let credentials = token.map_or(Credentials::Nothing, |token| Credentials::Token(Zeroizing::new(token.to_owned())));
        let Self { address, roots, timeout } = self.clone();
        Client::new(Config { address, roots, credentials, timeout, attempts: 4, approving: claviger_domain::Approving::Plain })
            .map_err(|e| Failure::client(e, None))
    }
}

/// The session that a command uses.
pub(crate) struct KeptSession {
    place: Place,
    token: Mutex<Zeroizing<String>>,
}

impl KeptSession {
    /// The session at this server, if there is one; renewed if it is short and can be.
    pub(crate) async fn find(place: Place) -> Result<Option<Self>, Failure> {
        let Some(kept) = look(&place.name())? else { return Ok(None) };
        let left = seconds_left(&kept.expires);
        let found = Self { place, token: Mutex::new(Zeroizing::new(kept.token.clone())) };
        if left < SHORT
            && let Err(why) = found.renew(&kept.token).await
            && left <= 0
        {
            return Err(Failure::client(claviger_client::Error::SessionOver(why), None));
        }
        Ok(Some(found))
    }

    async fn renew_once(&self, refused: &str) -> Result<(), String> {
        // Another program may hold the file for as long as its provider takes.
        let held = tokio::task::spawn_blocking(Held::open).await.map_err(|e| e.to_string())?;
        let mut held = held.map_err(|e| e.what().to_owned())?;
        let name = self.place.name();
        let kept = held.at(&name).cloned().ok_or("it was ended by `claviger logout`")?;
        if kept.token != refused && seconds_left(&kept.expires) >= SHORT {
            self.set(&kept.token);
            return Ok(());
        }
        let renewed = renewed(&self.place, &mut held, kept).await?;
        self.set(&renewed.token);
        held.keep(&name, renewed).map_err(|e| e.what().to_owned())
    }

    fn set(&self, token: &str) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Zeroizing::new(token.to_owned());
    }
}

/// Gets a new ID token from the provider, and a new session for it from the server.
pub(crate) async fn renewed(place: &Place, held: &mut Held, mut kept: Kept) -> Result<Kept, String> {
    let refresh_token = kept.refresh_token.clone().map(Zeroizing::new).ok_or("the provider gave nothing to renew it with")?;
    if seconds_left(&kept.renewable_until) <= 0 {
        return Err("the login is over".to_owned());
    }
    let provider = Provider::discover(kept.issuer.clone()).await.map_err(|e| e.to_string())?;
    let tokens = provider.refresh(&refresh_token).await.map_err(|e| e.to_string())?;
    if let Some(next) = tokens.refresh_token {
        // Before anything else: the provider takes the old one no more.
        kept.refresh_token = Some(next.to_string());
        held.keep(&place.name(), kept.clone()).map_err(|e| e.what().to_owned())?;
    }
    let wanted =
        CreateSession { issuer: kept.issuer.name.clone(), id_token: tokens.id_token.to_string(), ticket: Some(kept.ticket.clone()) };
    let client = place.client(None).map_err(|e| e.what().to_owned())?;
    let given = client.open_session(&wanted).await.map_err(|e| e.to_string())?;
    Ok(Kept::new(kept.issuer.clone(), given, kept.refresh_token.clone()))
}

impl Renew for KeptSession {
    fn token(&self) -> Zeroizing<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn renew<'a>(&'a self, refused: &'a str) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(self.renew_once(refused))
    }
}

/// Seconds until this moment by the clock of this machine; none when it is no moment.
pub(crate) fn seconds_left(moment: &str) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    rfc3339_to_unix(moment, "expires").map_or(0, |Timestamp(nanos)| nanos / 1_000_000_000 - now)
}
