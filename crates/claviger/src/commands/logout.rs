//! `claviger logout`: ends the login at the server, revokes what the provider gave, and forgets the session.

use crate::cli::AtServer;
use crate::failure::Failure;
use crate::output;
use crate::sessions::{Held, Kept, renewed, seconds_left};
use clap::Args;
use claviger_client::oidc::Provider;
use zeroize::Zeroizing;

/// Options of `logout`: none.
#[derive(Args)]
pub(crate) struct Logout {}

impl Logout {
    /// Does all three whatever becomes of each, and fails if one did.
    pub(crate) async fn run(self, at: &AtServer) -> Result<u8, Failure> {
        let held = tokio::task::spawn_blocking(Held::open).await.map_err(|e| Failure::other(e.to_string()))?;
        let mut held = held?;
        let name = at.place.name();
        let Some(kept) = held.at(&name).cloned() else {
            let said = format!("there was no login at {name}");
            return said_and_done(&said, at.json);
        };
        let ended = end(at, &mut held, &kept).await?;
        // A renewal may have brought another one.
        let refresh_token = held.at(&name).and_then(|kept| kept.refresh_token.clone()).map(Zeroizing::new);
        let revoked = match &refresh_token {
            None => Ok(true),
            Some(token) => revoke(kept.issuer.clone(), token).await,
        };
        held.forget(&name)?;
        let ended = match ended {
            Ended::Failed(why) => Some(format!("the server did not end the session, which ends at {}: {why}", kept.expires)),
            // What cannot be renewed by anybody any more is as good as ended.
            Ended::SessionOnly(why) if revoked != Ok(true) => {
                let until = &kept.renewable_until;
                Some(format!(
                    "the session was over, and its login was not ended at the server, where it can be renewed until {until}: {why}"
                ))
            }
            Ended::SessionOnly(_) | Ended::Login => None,
        };
        let failures: Vec<_> = ended.into_iter().chain(revoked.as_ref().err().cloned()).collect();
        if !failures.is_empty() {
            return Err(Failure::other(format!("the session is forgotten here, but {}", failures.join("; and "))));
        }
        if revoked == Ok(false) {
            eprintln!("note: the provider has no place to revoke its refresh token, which was removed here");
        }
        said_and_done(&format!("logged out of {name}"), at.json)
    }
}

/// What became of a login at the server.
enum Ended {
    /// It is over, with all its sessions and their renewal.
    Login,
    /// The session was over before, and the login could not be ended by another one.
    SessionOnly(String),
    /// The server did not do it.
    Failed(String),
}

/// Ends the login. A session that is over ends nothing, and its login could still be renewed by whoever has its ticket and its
/// refresh token: then it is renewed once more, to be ended.
async fn end(at: &AtServer, held: &mut Held, kept: &Kept) -> Result<Ended, Failure> {
    match at.place.client(Some(&kept.token))?.end_session().await {
        Ok(_) => return Ok(Ended::Login),
        Err(error) if error.code() != Some("unauthenticated") => return Ok(Ended::Failed(error.to_string())),
        Err(_) if kept.refresh_token.is_none() || seconds_left(&kept.renewable_until) <= 0 => return Ok(Ended::Login),
        Err(_) => {}
    }
    let last = match renewed(&at.place, held, kept.clone()).await {
        Ok(last) => last,
        Err(why) => return Ok(Ended::SessionOnly(why)),
    };
    let ended = at.place.client(Some(&last.token))?.end_session().await;
    Ok(ended.map_or_else(|error| Ended::Failed(error.to_string()), |_| Ended::Login))
}

async fn revoke(issuer: claviger_wire::native::LoginIssuer, token: &str) -> Result<bool, String> {
    let failed = |e: claviger_client::oidc::OidcError| format!("the provider did not revoke its refresh token: {e}");
    Provider::discover(issuer).await.map_err(failed)?.revoke(token).await.map_err(failed)
}

fn said_and_done(said: &str, json: bool) -> Result<u8, Failure> {
    match json {
        true => output::json(&serde_json::json!({ "done": true, "message": said }))?,
        false => output::line(said)?,
    }
    Ok(0)
}
