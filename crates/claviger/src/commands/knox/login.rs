//! `knox login`: a token for a password, for sites that give one (OAuth 2's password grant). It needs a terminal.

use super::flags::Given;
use super::settings::Site;
use super::{Command, Trouble};
use crate::{ask, new_file, output};
use claviger_client::knox::password_grant;
use rustix::termios::isatty;
use serde::Deserialize;
use std::io::{self, Write as _};
use zeroize::Zeroize;

pub(super) const COMMAND: Command = Command {
    usage: "login [username]",
    short: "get a token for your password, and save it",
    long: "\
Asks for your password, gets a token for it from KNOX_LOGIN_URL (OAuth 2, password grant), and saves the answer in
~/.knox_user_auth, where only you can read it. Without a user name you are the user of this session.

Where people log in with a browser, use 'claviger login'.

See also: knox help auth",
    flags: &[],
    run: Some(login),
};

const PROMPT: &str = "Please enter your password:";

/// What of the answer is looked at.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    error: String,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.access_token.zeroize();
    }
}

fn login(site: &Site, given: &Given) -> Result<(), Trouble> {
    let user = match given.arguments.as_slice() {
        [] => site.user().ok_or("Error getting OS user: neither USER nor LOGNAME is set; name the user: knox login USER")?,
        [user] => user.clone(),
        _ => return Err("Invalid arguments. See 'knox login -h'".into()),
    };
    let (address, config, client_id) = site.login()?;
    let file = site.token_file().ok_or("Failed to write auth data to file: HOME is not set")?;
    if !isatty(io::stdin()) {
        output::line(PROMPT)?;
        return Err("Problem getting password: inappropriate ioctl for device".into());
    }
    let password = ask::hidden_line(|| writeln!(io::stdout(), "{PROMPT}"));
    let password = password.map_err(|e| format!("Problem getting password: {}", e.what()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| format!("starting: {e}"))?;
    let asked = runtime.block_on(password_grant(config, &address, &client_id, &user, &password));
    let (status, body) = asked.map_err(|e| format!("Error connecting to auth: {e}"))?;
    // Not a word of an answer that is not understood: it may have a token.
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|_| format!("Unexpected response from auth (HTTP status {status}): it is not JSON"))?;
    if !answer.error.is_empty() {
        return Err(format!("Fail to authenticate: {:?}", answer.error).into());
    }
    if !(200..300).contains(&status) || answer.access_token.is_empty() {
        return Err(format!("Unexpected response from auth (HTTP status {status}): it has no access_token").into());
    }
    // Its mode is right from the beginning, and a link in its place is not followed.
    new_file::put(&file, &body).map_err(|e| format!("Failed to write auth data to file: {}: {e}", file.display()).into())
}
