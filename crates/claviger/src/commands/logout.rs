//! `claviger logout`: ends the login at the server, revokes what the provider gave, and forgets the session.

use crate::cli::AtServer;
use crate::failure::Failure;
use crate::output;
use crate::sessions::Held;
use clap::Args;
use claviger_client::oidc::Provider;

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
        let ended = at.place.client(Some(&kept.token))?.end_session().await;
        let ended = match ended {
            // It is over already.
            Err(error) if error.code() == Some("unauthenticated") => Ok(()),
            ended => ended.map(drop).map_err(|e| format!("the server did not end the session, which ends at {}: {e}", kept.expires)),
        };
        let revoked = match &kept.refresh_token {
            None => Ok(true),
            Some(token) => revoke(kept.issuer.clone(), token).await,
        };
        held.forget(&name)?;
        let failures: Vec<_> = ended.err().into_iter().chain(revoked.as_ref().err().cloned()).collect();
        if !failures.is_empty() {
            return Err(Failure::other(format!("the session is forgotten here, but {}", failures.join("; and "))));
        }
        if revoked == Ok(false) {
            eprintln!("note: the provider has no place to revoke its refresh token, which was removed here");
        }
        said_and_done(&format!("logged out of {name}"), at.json)
    }
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
