//! `claviger generate`.

use super::{file, shown};
use crate::command_line::{command, done, finish, json};
use crate::server;
use std::process::Command;

/// Standard output of another program that succeeds.
fn other(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_made_into_a_key_is_seen_by_nobody() {
    let server = server();
    let policy = file(&server, "policy.toml", "length = 20\nclasses = [\"lower\", \"digit\"]\nmin = { digit = 3 }\nexclude = \"o\"\n");
    let policy = shown(&policy);
    let (code, out, err) = finish(command(&server, &["generate", "password", "--policy", policy, "--into", "db/pw"]), "");
    assert_eq!(code, 0, "{err}");
    let value = done(&server, &["get", "db/pw"]);
    assert!(value.len() == 20 && value.bytes().filter(u8::is_ascii_digit).count() >= 3 && !value.contains('o'), "{value}");
    assert!(out.starts_with("created db/pw, version ") && !out.contains(&value) && !err.contains(&value), "{out} {err}");
    // 35 characters, 20 of them, nearly all of which have three digits.
    assert_eq!(err, "entropy: 102 bits\n");

    let again = json(&server, &["generate", "token", "--prefix", "acme_", "--checksum", "--into", "db/pw"]);
    assert_eq!((&again["done"], &again["state"], again.get("value")), (&"added".into(), &"active".into(), None));
    assert_eq!(done(&server, &["get", "db/pw"]), value, "it is not promoted unless that is asked for");
    let version = again["version"].as_str().unwrap();
    let token = done(&server, &["get", "db/pw", "--version", version]);
    assert!(token.starts_with("acme_") && token.len() == 5 + 43 + 6, "{token}");
    json(&server, &["generate", "passphrase", "--into", "db/pw", "--promote"]);
    assert_eq!(done(&server, &["get", "db/pw"]).split('-').count(), 6);
    assert!(!server.log().contains(&value) && !server.log().contains(&token));
}

#[test]
fn what_is_made_for_standard_output_is_the_value_alone() {
    let server = server();
    let make = |arguments: &[&str]| {
        let mut command = command(&server, &[&["generate"], arguments].concat());
        // No server is needed.
        command.env_clear();
        finish(command, "")
    };
    let (_, password, said) = make(&["password", "--length", "12", "--classes", "symbol", "--symbols", "-_", "--min", "digit=11"]);
    assert!(password.len() == 12 && password.bytes().filter(u8::is_ascii_digit).count() >= 11, "{password}");
    assert!(said.starts_with("entropy: 4"), "{said}");
    let (_, first, _) = make(&["token", "--format", "hex", "--bytes", "16"]);
    let (_, second, _) = make(&["token", "--format", "hex", "--bytes", "16"]);
    assert!(first.len() == 32 && first != second && first.bytes().all(|b| b.is_ascii_hexdigit()));
    let list = file(&server, "words", "red\ngreen\nblue\n\nred\nblack\n");
    let (_, phrase, said) = make(&["passphrase", "--words", "4", "--separator", " ", "--wordlist", shown(&list)]);
    assert!(phrase.split(' ').all(|w| ["red", "green", "blue", "black"].contains(&w)) && said == "entropy: 8 bits\n", "{phrase} {said}");

    for (arguments, why) in [
        (&["password", "--length", "4", "--min", "digit=5"][..], "cannot be kept"),
        (&["password", "--promote"], "--into"),
        (&["token", "--prefix", "a b"], "prefix"),
        (&["passphrase", "--wordlist", "/nowhere"], "/nowhere"),
    ] {
        let (code, out, err) = make(arguments);
        assert!(code == 2 && out.is_empty() && err.contains(why), "{arguments:?}: {code} {err}");
    }
    let unknown = file(&server, "policy.toml", "lenght = 20\n");
    let (code, _, err) = make(&["password", "--policy", shown(&unknown)]);
    assert!(code == 2 && err.contains("lenght"), "{err}");
}

#[test]
fn key_pairs_are_read_by_openssl_and_openssh() {
    let server = server();
    for algorithm in ["ed25519", "ecdsa-p256", "ecdsa-p384", "rsa"] {
        let key = format!("ssh/{algorithm}");
        let made = json(&server, &["generate", "keypair", algorithm, "--bits", "2048", "--comment", "me@here", "--into", &key]);
        assert!(made.get("value").is_none());
        let (public, openssh) = (made["public"].as_str().unwrap(), made["openssh"].as_str().unwrap());
        let private = file(&server, "private.pem", done(&server, &["get", &key]));
        assert_eq!(
            other("openssl", &["pkey", "-in", shown(&private), "-check", "-pubout"]).trim_start_matches("Key is valid\n").trim_end(),
            public
        );
        let line = file(&server, "key.pub", format!("{openssh}\n"));
        assert!(other("ssh-keygen", &["-l", "-f", shown(&line)]).contains("me@here"), "{algorithm}");
        if algorithm != "ed25519" {
            // OpenSSH 9.2 converts no Ed25519 key; above it has at least read it.
            let pem = file(&server, "public.pem", public);
            let converted = other("ssh-keygen", &["-i", "-m", "PKCS8", "-f", shown(&pem)]);
            assert_eq!(Some(converted.trim_end()), openssh.strip_suffix(" me@here"));
        }
    }
    let (_, shown, _) = finish(command(&server, &["generate", "keypair", "ed25519"]), "");
    assert!(
        shown.starts_with("-----BEGIN PRIVATE KEY-----\n")
            && shown.contains("-----BEGIN PUBLIC KEY-----")
            && shown.contains("\nssh-ed25519 ")
    );
}
