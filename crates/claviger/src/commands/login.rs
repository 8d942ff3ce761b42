//! `claviger login`: a person logs in in a browser; the session that comes of it is kept for the other commands.

use crate::cli::AtServer;
use crate::failure::{Code, Failure};
use crate::output;
use crate::sessions::{Held, Kept, KnownIssuers, look};
use clap::Args;
use claviger_client::oidc::{DeviceCode, Loopback, OidcError, Provider, Tokens};
use claviger_wire::native::{CreateSession, LoginIssuer, LoginMethods};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a person has. The server's nonce is good for as long.
const PATIENCE: Duration = Duration::from_secs(600);

/// Options of `login`.
#[derive(Args)]
pub(crate) struct Login {
    /// Which issuer; needed only where the server has several.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Log in at this issuer only, whatever the server says [env: CLAVIGER_ISSUER_URL]. Without it the issuer of your first login
    /// at a server is remembered, and another one refused.
    #[arg(long, value_name = "URL")]
    issuer_url: Option<String>,
    /// Log in although the server names another issuer than at your last login, and remember that one.
    #[arg(long, conflicts_with = "issuer_url")]
    accept_issuer: bool,
    /// Show a code to type in a browser on another machine, instead of opening one here.
    #[arg(long)]
    device: bool,
    /// Print the address to open instead of opening it.
    #[arg(long, conflicts_with = "device")]
    no_browser: bool,
}

impl Login {
    pub(crate) async fn run(self, at: &AtServer) -> Result<u8, Failure> {
        // A file that is not used is said before anybody logs in: what came of it could not be kept, nor ended.
        look(&at.place.name())?;
        let server = at.place.client(None)?;
        let methods = server.login_methods().await.map_err(|e| Failure::client(e, None))?;
        let name = at.place.name();
        let issuer = self.choose(&methods)?.clone();
        if !self.accept_issuer && self.pinned().is_none() {
            KnownIssuers::of(&name)?.check(&name, &issuer, self.issuer.is_some())?;
        }
        let provider = Provider::discover(issuer.clone()).await.map_err(|e| failed(&e))?;
        let tokens = match self.device {
            true => by_device(&provider, &methods.nonce).await,
            false => self.by_browser(&provider, &methods.nonce).await,
        };
        let Tokens { id_token, refresh_token } = tokens.map_err(|e| failed(&e))?;
        let wanted = CreateSession { issuer: issuer.name.clone(), id_token: id_token.to_string(), ticket: None };
        let given = server.open_session(&wanted).await.map_err(|e| Failure::client(e, None))?;
        let kept = Kept::new(issuer.clone(), given, refresh_token.map(|token| token.to_string()));
        let shown = Shown::of(&kept);
        let held = tokio::task::spawn_blocking(Held::open).await.map_err(|e| Failure::other(e.to_string()))?;
        let mut held = held?;
        held.keep(&name, kept)?;
        if held.remember(&name, &issuer)? {
            eprintln!("note: {name} has its people log in at {}; another issuer will be refused", output::clean(&issuer.issuer));
        }
        shown.print(at.json)?;
        Ok(0)
    }

    /// The one issuer that the person trusts, by option or environment.
    fn pinned(&self) -> Option<String> {
        self.issuer_url.clone().or_else(|| std::env::var("CLAVIGER_ISSUER_URL").ok().filter(|url| !url.is_empty() && !self.accept_issuer))
    }

    fn choose<'m>(&self, methods: &'m LoginMethods) -> Result<&'m LoginIssuer, Failure> {
        let is_wanted = |issuer: &&LoginIssuer| self.issuer.as_ref().is_none_or(|name| *name == issuer.name);
        let names = || methods.issuers.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
        if let (Some(url), [_, ..]) = (self.pinned(), &methods.issuers[..]) {
            let other = || {
                let all = methods.issuers.iter().map(|i| format!("{} ({})", i.issuer, i.name)).collect::<Vec<_>>().join(", ");
                Failure::new(
                    Code::Unauthenticated,
                    format!("this server's people do not log in at {url}, which you demand; it names {all}"),
                )
                .next("ask its administrator, and type no password elsewhere before; --issuer-url or CLAVIGER_ISSUER_URL has the URL")
            };
            return methods.issuers.iter().filter(is_wanted).find(|issuer| issuer.issuer == url).ok_or_else(other);
        }
        match (&self.issuer, &methods.issuers[..]) {
            (_, []) => Err(Failure::usage("this server has no issuer at which people log in")
                .next("use CLAVIGER_TOKEN or a certificate; its administrator can configure [auth.oidc.NAME]")),
            (None, [only]) => Ok(only),
            (None, _) => Err(Failure::usage(format!("this server has several issuers: {}", names())).next("choose one with --issuer NAME")),
            (Some(name), all) => {
                let unknown = || Failure::usage(format!("this server has no issuer `{name}`")).next(format!("there are {}", names()));
                all.iter().find(|i| i.name == *name).ok_or_else(unknown)
            }
        }
    }

    async fn by_browser(&self, provider: &Provider, nonce: &str) -> Result<Tokens, OidcError> {
        let loopback = Loopback::listen().await?;
        let attempt = provider.attempt(loopback.redirect(), nonce)?;
        let is_open = !self.no_browser && open(&attempt.url);
        let verb = if is_open { "a browser was opened; if it was not, open" } else { "open" };
        eprintln!("{verb} this address to log in:\n\n  {}\n", output::clean(&attempt.url));
        let landed = loopback.landed(&attempt, PATIENCE).await?;
        provider.redeem(&attempt, &landed).await
    }
}

async fn by_device(provider: &Provider, nonce: &str) -> Result<Tokens, OidcError> {
    let device = provider.begin_device(nonce).await?;
    let DeviceCode { user_code, verification_uri, verification_uri_complete, expires_in } = &device.code;
    let (uri, code, minutes) = (output::clean(verification_uri), output::clean(user_code), expires_in.as_secs().div_ceil(60));
    eprintln!("open {uri} within {minutes} min and type this code there:\n\n  {code}\n");
    if let Some(complete) = verification_uri_complete {
        eprintln!("or open {}\n", output::clean(complete));
    }
    eprintln!("only type a code that you have asked for yourself");
    provider.finish_device(device).await
}

/// Asks the desktop for a browser; false where there is none.
fn open(url: &str) -> bool {
    let has_desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    let start = || Command::new("xdg-open").arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    has_desktop && start().is_ok_and(|status| status.success())
}

fn failed(error: &OidcError) -> Failure {
    let code = match error {
        OidcError::Web(error) if error.is_transient() => Code::Unavailable,
        OidcError::Refused(_) | OidcError::Mixed(_) | OidcError::OtherIssuer => Code::Unauthenticated,
        _ => Code::Other,
    };
    Failure::new(code, format!("logging in: {error}")).next("nothing was kept; run `claviger login` again")
}

/// What is said at the end.
struct Shown {
    principal: String,
    issuer: String,
    expires: String,
    renewable_until: String,
    is_renewed: bool,
}

impl Shown {
    fn of(kept: &Kept) -> Self {
        Self {
            principal: kept.principal.clone(),
            issuer: kept.issuer.name.clone(),
            expires: kept.expires.clone(),
            renewable_until: kept.renewable_until.clone(),
            is_renewed: kept.refresh_token.is_some(),
        }
    }

    fn print(&self, json: bool) -> Result<(), Failure> {
        let Self { principal, issuer, expires, renewable_until, is_renewed } = self;
        let until = if *is_renewed { renewable_until } else { expires };
        match json {
            true => output::json(&serde_json::json!({
                "principal": principal, "issuer": issuer, "expires": expires, "renewable_until": until,
            })),
            false => output::line(&format!("logged in as {principal} by {issuer}, until {until}")),
        }
    }
}
