//! `knox help`, `knox version`, and what is shown to who is not understood.

use super::flags::Given;
use super::settings::{Site, VERSION as NUMBER};
use super::{COMMANDS, Command, Trouble, USAGE};
use crate::failure::Failure;
use crate::output;
use std::fmt::Write as _;

pub(super) const VERSION: Command = Command {
    usage: "version",
    short: "print this program's version",
    long: "Prints the version of this program.",
    flags: &[],
    run: Some(version),
};

pub(super) const AUTH: Command = Command {
    usage: "auth",
    short: "how to say who you are, and where the server is",
    long: "\
Who you are is taken from the first of these that there is:

    KNOX_USER_AUTH       a user's token
    KNOX_MACHINE_AUTH    this machine's name; your certificate must have it. If it does not, the certificate's own name is
                         used
    KNOX_SERVICE_AUTH    any text: you are the service that your certificate names
    ~/.knox_user_auth    what 'knox login' saved
    CLAVIGER_TOKEN       a user's token, as for the other commands of claviger
    KNOX_CERT            the machine or service that the certificate names

The server, and how it proves itself:

    KNOX_HOST            HOST or HOST:PORT (else the server of CLAVIGER_ADDR)
    KNOX_CA              PEM file of the authorities that may have signed its certificate (else CLAVIGER_CA)
    KNOX_SERVER_NAME     the name in its certificate, where that is another than the host's
    KNOX_CERT, KNOX_KEY  PEM files of your certificate and its key (else CLAVIGER_CERT, CLAVIGER_KEY)

The cache, and 'knox login':

    KNOX_FOLDER          the cache folder (else /var/lib/knox)
    KNOX_FOLDER_MODES    knox: 'knox daemon' lets every user of the machine read and write the folder, as Knox does. Without it,
                         only its own user and root
    KNOX_NO_CACHE        1: there is no cache; everything is asked of the server
    KNOX_LOGIN_URL       where 'knox login' gets a token for a password
    KNOX_LOGIN_CLIENT_ID the client id it says there
    KNOX_LOGIN_CA        PEM file of the authorities that may have signed that server's certificate (else KNOX_CA, CLAVIGER_CA)

See also: knox login",
    flags: &[],
    run: None,
};

fn version(_: &Site, _: &Given) -> Result<(), Trouble> {
    Ok(output::line(&format!("Knox CLI version {NUMBER}"))?)
}

/// `help` and `help TOPIC`.
pub(super) fn run(arguments: &[String]) -> Result<u8, Failure> {
    let topic = match arguments {
        [] => {
            output::raw(overview().as_bytes())?;
            return Ok(0);
        }
        [topic] => topic,
        _ => {
            eprintln!("usage: knox help command\n\nToo many arguments given.");
            return Ok(USAGE);
        }
    };
    let Some(command) = COMMANDS.iter().find(|command| command.name() == topic) else {
        eprintln!("Unknown help topic `{}`.  Run 'knox help'.", output::clean(topic));
        return Ok(USAGE);
    };
    let usage = if command.run.is_some() { format!("usage: knox {}\n\n", command.usage) } else { String::new() };
    output::raw(format!("{usage}{}\n", command.long).as_bytes())?;
    Ok(0)
}

/// Shows on standard error what there is; the exit code.
pub(super) fn usage() -> u8 {
    eprint!("{}", overview());
    USAGE
}

/// Shows on standard error how a command is used; the exit code.
pub(super) fn usage_of(command: &Command) -> u8 {
    eprintln!("usage: {}\n\n{}", command.usage, command.long);
    USAGE
}

fn overview() -> String {
    let mut text = String::from("Knox's command line, by Claviger.\n\nUsage:\n\n\tknox command [arguments]\n\nThe commands are:\n");
    let list = |text: &mut String, commands: bool| {
        for command in COMMANDS.iter().filter(|command| command.run.is_some() == commands) {
            let _ = write!(text, "\n    {:<14} {}", command.name(), command.short);
        }
    };
    list(&mut text, true);
    text.push_str("\n\nUse \"knox help [command]\" for more about a command.\n\nFurther topics:\n");
    list(&mut text, false);
    text.push_str("\n\nUse \"knox help [topic]\" for more about a topic.\n\n");
    text
}
