//! `claviger acl any-user-creates`: the one rule of creation that names nobody.

use super::change::edit_prefix;
use crate::cli::Session;
use crate::commands::states::show_change;
use crate::failure::Failure;
use crate::parse;
use clap::{Args, ValueEnum};
use claviger_domain::Prefix;

/// Options of `acl any-user-creates`.
#[derive(Args)]
pub(crate) struct AnyUserCreates {
    /// The prefix; '' is the prefix of all keys.
    #[arg(value_parser = parse::prefix)]
    prefix: Prefix,
    /// Whether any authenticated user may create keys there.
    switch: Switch,
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl AnyUserCreates {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let on = matches!(self.switch, Switch::On);
        let changed = edit_prefix(session, &self.prefix, |info| info.any_user_creates = on).await?;
        let may = if on { "any user may" } else { "only who is granted it may" };
        show_change(session, &changed, &format!("prefix `{}`: {may} create keys there", self.prefix))
    }
}
