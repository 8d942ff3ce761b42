//! Keys that are used, not read: by the command line, against OpenSSL, and as the guide has it.

use crate::command_line::{command, done, finish, json, newest, with_input};
use crate::{program, server};
use claviger_testkit::TestServer;
use rustix::fs::{Mode, OFlags};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A file's path. Few and short, so they may live as long as the tests.
fn in_folder(folder: &Path, name: &str) -> &'static str {
    Box::leak(folder.join(name).to_str().unwrap().to_owned().into_boxed_str())
}

fn openssl(folder: &Path, arguments: &[&str]) -> bool {
    Command::new("openssl").args(arguments).current_dir(folder).output().unwrap().status.success()
}

/// The exit code and standard error of a command that fails.
fn refused(server: &TestServer, arguments: &[&str], input: &str) -> (i32, String) {
    let (code, _, err) = finish(command(server, arguments), input);
    (code, err)
}

#[test]
fn guide_of_used_keys() {
    let guide = include_str!("../../../../docs/guides/keys-that-are-used.md");
    let blocks = guide.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let script = format!("set -euo pipefail\n{}", blocks.collect::<String>());
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let mut bash = command(&server, &[]);
    let path = format!("{}:{}", program().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let env: Vec<_> = bash.get_envs().map(|(k, v)| (k.to_owned(), v.unwrap().to_owned())).collect();
    bash = Command::new("bash");
    bash.env_clear().envs(env).env("PATH", path).args(["-c", &script]).current_dir(folder.path());
    let (code, out, err) = finish(bash, "");
    assert_eq!(code, 0, "{out}\n{err}");
    for line in ["4111 1111 1111 1111", "one\ntwo", "Verified OK", "good: signed by version", "imported pay/other"] {
        assert!(out.contains(line), "{line}: {out}");
    }
}

#[test]
fn openssl_verifies_what_is_signed_and_encrypts_what_is_decrypted() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let at = |name| in_folder(folder.path(), name);
    std::fs::write(at("message"), "a message").unwrap();
    for (kind, scheme, check) in [
        ("ecdsa-p384", vec![], vec!["dgst", "-sha384", "-verify", "pub", "-signature", "sig", "message"]),
        ("ed25519", vec![], vec!["pkeyutl", "-verify", "-pubin", "-inkey", "pub", "-rawin", "-in", "message", "-sigfile", "sig"]),
        (
            "rsa",
            vec!["--hash", "sha-384"],
            vec![
                "dgst",
                "-sha384",
                "-sigopt",
                "rsa_padding_mode:pss",
                "-sigopt",
                "rsa_pss_saltlen:digest",
                "-verify",
                "pub",
                "-signature",
                "sig",
                "message",
            ],
        ),
        ("rsa", vec!["--padding", "pkcs1v15"], vec!["dgst", "-sha256", "-verify", "pub", "-signature", "sig", "message"]),
    ] {
        let key = format!("k/{kind}{}", scheme.len() + check.len());
        done(&server, &["create", &key, "--kind", kind]);
        std::fs::write(at("pub"), done(&server, &["public-key", &key])).unwrap();
        let sign = ["sign", &key, "--in", at("message"), "--out", at("sig")];
        done(&server, &[&sign[..], &scheme].concat());
        assert!(openssl(folder.path(), &check), "{kind} {scheme:?}");
        let verify = ["verify", &key, "--in", at("message"), "--signature-file", at("sig")];
        assert!(done(&server, &[&verify[..], &scheme].concat()).starts_with("good"));
        std::fs::write(at("other"), "another").unwrap();
        let (code, out, _) =
            finish(command(&server, &[&["verify", &key, "--in", at("other"), "--signature-file", at("sig")][..], &scheme].concat()), "");
        assert!(code == 1 && out.starts_with("bad"), "{out}");
    }
    let oaep = ["-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-in", "message", "-out", "sealed"];
    assert!(openssl(folder.path(), &[&["pkeyutl", "-encrypt", "-pubin", "-inkey", "pub"][..], &oaep].concat()));
    let base64 = Command::new("base64").args(["-w0", "sealed"]).current_dir(folder.path()).output().unwrap().stdout;
    let key = json(&server, &["ls", "k/rsa"])["keys"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    let bare = std::str::from_utf8(&base64).unwrap();
    assert_eq!(with_input(&server, &["decrypt", &key], bare), "a message");

    // What is encrypted here names its version; the bare form is tried with those in use, or with the one that is told.
    let named = with_input(&server, &["encrypt", &key, "--context", "row"], "little");
    assert_eq!(with_input(&server, &["decrypt", &key, "--context", "row"], &named), "little");
    let old = newest(&server, &key);
    done(&server, &["add", &key, "--generate"]);
    done(&server, &["promote", &key, &newest(&server, &key)]);
    assert_eq!(with_input(&server, &["decrypt", &key, "--version", &old], bare), "a message");
    let moved = with_input(&server, &["rewrap", &key], bare);
    done(&server, &["deactivate", &key, &old]);
    assert_eq!(with_input(&server, &["decrypt", &key], &moved), "a message");
    let (code, err) = refused(&server, &["decrypt", &key, "--context", "row"], &named);
    assert!(code != 0 && err.contains(&format!("version {old} of this key is inactive")), "{err}");
    let (code, err) = refused(&server, &["encrypt", &key], &"x".repeat(400));
    assert!(code == 8 && err.contains("at most 318 bytes"), "{err}");
    done(&server, &["encrypt", &key, "--in", at("message"), "--out", at("wrapped")]);
    assert_eq!(done(&server, &["decrypt", &key, "--in", at("wrapped")]), "a message");
}

#[test]
fn ciphertexts_and_files_of_elsewhere_or_cut_off_are_refused_and_leave_no_file() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let at = |name| in_folder(folder.path(), name);
    for key in ["k/a", "k/b"] {
        done(&server, &["create", key, "--kind", "aes256-gcm"]);
    }
    let sealed = with_input(&server, &["encrypt", "k/a", "--context", "row"], "hunter2");
    assert_eq!(with_input(&server, &["decrypt", "k/a", "--context", "row"], &sealed), "hunter2");
    let (code, err) = refused(&server, &["decrypt", "k/b", "--context", "row"], &sealed);
    assert!(code == 8 && err.contains("a key of another name"), "{err}");
    let (code, err) = refused(&server, &["decrypt", "k/a", "--context", "other"], &sealed);
    assert!(code == 8 && err.contains("does not authenticate"), "{err}");
    let (code, err) = refused(&server, &["decrypt", "k/a"], &sealed[..40]);
    assert!(code == 8 && err.contains("cut off"), "{err}");
    assert_eq!(refused(&server, &["decrypt", "k/a"], "no base64!").0, 2);

    std::fs::write(at("plain"), vec![7; 200_000]).unwrap();
    done(&server, &["encrypt", "k/a", "--in", at("plain"), "--out", at("sealed")]);
    let whole = std::fs::read(at("sealed")).unwrap();
    std::fs::write(at("cut"), &whole[..whole.len() - 40_000]).unwrap();
    let (code, err) = refused(&server, &["decrypt", "k/a", "--in", at("cut"), "--out", at("got")], "");
    assert!(code == 1 && err.contains("damaged"), "{err}");
    let (code, err) = refused(&server, &["decrypt", "k/b", "--in", at("sealed"), "--out", at("got")], "");
    assert!(code == 8 && err.contains("encrypted with the key k/a"), "{err}");
    assert!(!Path::new(at("got")).exists());

    // After a rotation the file is rewrapped in place, and opens without the old version.
    let old = newest(&server, "k/a");
    done(&server, &["add", "k/a", "--generate"]);
    done(&server, &["promote", "k/a", &newest(&server, "k/a")]);
    done(&server, &["rewrap", "k/a", "--in", at("sealed"), "--out", at("sealed")]);
    done(&server, &["deactivate", "k/a", &old]);
    done(&server, &["decrypt", "k/a", "--in", at("sealed"), "--out", at("got")]);
    assert_eq!(std::fs::read(at("got")).unwrap(), vec![7; 200_000]);
    let (code, err) = refused(&server, &["decrypt", "k/a", "--context", "row"], &sealed);
    assert!(err.contains(&format!("version {old} of this key is inactive")) && code != 0, "{code} {err}");
}

#[test]
fn the_head_of_one_file_does_not_open_the_chunks_of_another() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let at = |name| in_folder(folder.path(), name);
    done(&server, &["create", "k/a", "--kind", "aes256-gcm"]);
    for (plain, sealed, byte) in [("plain1", "sealed1", 1), ("plain2", "sealed2", 2)] {
        std::fs::write(at(plain), vec![byte; 70_000]).unwrap();
        done(&server, &["encrypt", "k/a", "--in", at(plain), "--out", at(sealed)]);
    }
    let files = ["sealed1", "sealed2"].map(|name| std::fs::read(at(name)).unwrap());
    let head = files[0].len() - 70_000 - 32;
    for mixed in [[&files[0][..head], &files[1][head..]], [&files[0][..head + 65_552], &files[1][head + 65_552..]]] {
        std::fs::write(at("mixed"), mixed.concat()).unwrap();
        let (code, err) = refused(&server, &["decrypt", "k/a", "--in", at("mixed"), "--out", at("got")], "");
        assert!(code == 1 && err.contains("put together from several"), "{code} {err}");
    }
    // In another context the data key does not even come out.
    let (code, err) = refused(&server, &["decrypt", "k/a", "--context", "c", "--in", at("sealed1"), "--out", at("got")], "");
    assert!(code == 8 && err.contains("does not authenticate"), "{code} {err}");
    assert!(!Path::new(at("got")).exists());
}

#[test]
fn what_is_asked_for_in_a_file_is_written_there_also_when_the_answer_is_json() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let at = |name| in_folder(folder.path(), name);
    done(&server, &["create", "k/a", "--kind", "aes256-gcm"]);
    done(&server, &["create", "k/s", "--kind", "ed25519"]);
    let sealed = with_input(&server, &["encrypt", "k/a"], "hunter2");
    for json in [&[][..], &["--json"]] {
        let out = with_input(&server, &[&["decrypt", "k/a", "--out", at("plain")], json].concat(), &sealed);
        assert_eq!((out.as_str(), std::fs::read_to_string(at("plain")).unwrap().as_str()), ("", "hunter2"));
        let out = with_input(&server, &[&["rewrap", "k/a", "--out", at("moved")], json].concat(), &sealed);
        assert_eq!(out, "");
        assert_eq!(done(&server, &["decrypt", "k/a", "--in", at("moved")]), "hunter2");
        let out = with_input(&server, &[&["sign", "k/s", "--out", at("sig")], json].concat(), "m");
        assert_eq!((out.as_str(), std::fs::read(at("sig")).unwrap().len()), ("", 64));
        for name in ["plain", "moved", "sig"] {
            std::fs::remove_file(at(name)).unwrap();
        }
    }
    let (code, err) = refused(&server, &["decrypt", "k/a", "--out", "/dev/full"], &sealed);
    assert!(code == 1 && err.contains("writing /dev/full: "), "{code} {err}");
}

#[test]
fn a_command_that_is_killed_leaves_no_half_of_a_plaintext() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let nameless = rustix::fs::open(folder.path(), OFlags::TMPFILE | OFlags::WRONLY, Mode::RUSR);
    if nameless.is_err() {
        return eprintln!("this file system has no files without a name");
    }
    let at = |name| in_folder(folder.path(), name);
    done(&server, &["create", "k/a", "--kind", "aes256-gcm"]);
    std::fs::write(at("plain"), vec![7; 1_000_000]).unwrap();
    done(&server, &["encrypt", "k/a", "--in", at("plain"), "--out", at("sealed")]);
    let sealed = std::fs::read(at("sealed")).unwrap();
    let mut decrypt = command(&server, &["decrypt", "k/a", "--out", at("got")]);
    let mut child = decrypt.stdin(Stdio::piped()).spawn().unwrap();
    // All but the last bytes: a pipe holds 64 KiB, so most of it has been read and written by then.
    let mut input = child.stdin.take().unwrap();
    input.write_all(&sealed[..900_000]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["plain", "sealed"]);
}

#[test]
fn private_keys_that_openssl_made_come_in_and_are_the_same_keys() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let at = |name| in_folder(folder.path(), name);
    std::fs::write(at("published"), done(&server, &["import-key", "show"])).unwrap();
    std::fs::write(at("message"), "a message").unwrap();
    let rsa = |bits| ["-algorithm", "RSA", "-pkeyopt", bits];
    for (kind, made, more) in [
        ("ecdsa-p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..], &[][..]),
        ("ecdsa-p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], &[]),
        ("ed25519", &["-algorithm", "ED25519"], &[]),
        ("rsa", &rsa("rsa_keygen_bits:2048"), &["--rsa-bits", "2048"]),
    ] {
        let key = format!("k/{kind}");
        assert!(openssl(folder.path(), &[&["genpkey", "-out", "pem"], made].concat()), "{kind}");
        assert!(openssl(folder.path(), &["pkcs8", "-topk8", "-nocrypt", "-in", "pem", "-outform", "DER", "-out", "der"]));
        assert!(openssl(folder.path(), &["pkey", "-in", "pem", "-pubout", "-out", "theirs"]));
        let from = at(if kind == "rsa" { "der" } else { "pem" });
        done(&server, &["import-key", "wrap", &key, "--kind", kind, "--to", at("published"), "--in", from, "--out", at("wrapped")]);
        done(&server, &[&["import-key", "send", &key, "--create", kind, "--in", at("wrapped")], more].concat());
        assert_eq!(done(&server, &["public-key", &key]), std::fs::read_to_string(at("theirs")).unwrap(), "{kind}");
        done(&server, &["sign", &key, "--in", at("message"), "--out", at("sig")]);
        assert!(done(&server, &["verify", &key, "--in", at("message"), "--signature-file", at("sig")]).starts_with("good"));
        let (code, _, _) = finish(command(&server, &["export-key", &key, "--out", "-"]), "");
        assert_eq!(code, 4, "{kind} was not made exportable");
    }
    // Too short, of another curve, encrypted, and in a form that is no PKCS#8: nothing is wrapped.
    let wrap = |kind, from| ["import-key", "wrap", "k/no", "--kind", kind, "--to", at("published"), "--in", at(from), "--out", at("no")];
    assert!(openssl(folder.path(), &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "short"]));
    assert!(openssl(folder.path(), &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "p256"]));
    assert!(openssl(folder.path(), &["pkcs8", "-topk8", "-passout", "pass:x", "-in", "p256", "-out", "encrypted"]));
    assert!(openssl(folder.path(), &["ec", "-in", "p256", "-outform", "DER", "-out", "sec1"]));
    let wrong = [("rsa", "short"), ("ecdsa-p384", "p256"), ("ecdsa-p256", "encrypted"), ("ecdsa-p256", "sec1"), ("aes256-gcm", "p256")];
    for (kind, from) in wrong {
        let (code, err) = refused(&server, &wrap(kind, from), "");
        assert!(code == 2 && err.contains("that is no key of the kind") && !Path::new(at("no")).exists(), "{kind}: {code} {err}");
    }
    // Of another length than the key says, for another key than it was wrapped for, and cut off.
    done(&server, &wrap("rsa", "der"));
    let longer = ["import-key", "send", "k/no", "--create", "rsa", "--rsa-bits", "3072", "--in", at("no")];
    let (code, err) = refused(&server, &longer, "");
    assert!(code == 8 && err.contains("wrapped: that is no key of the kind"), "{code} {err}");
    let send = ["import-key", "send", "k/other", "--create", "rsa", "--rsa-bits", "2048", "--in", at("wrapped")];
    let (code, err) = refused(&server, &send, "");
    assert!(code == 8 && err.contains("does not unwrap"), "{err}");
    let wrapped = std::fs::read(at("wrapped")).unwrap();
    std::fs::write(at("wrapped"), &wrapped[..60]).unwrap();
    let (code, err) = refused(&server, &send, "");
    assert!(code == 8 && err.contains("no wrapped material"), "{err}");
}

#[test]
fn a_keyset_that_was_made_elsewhere_comes_in_for_its_template() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let at = |name| in_folder(folder.path(), name);
    let template = |name| ["--template", name];
    let new = ["create", "t/there", "--kind", "tink", "--exportable"];
    done(&server, &[&new[..], &template("TINK_AEAD_AES128_GCM")].concat());
    let sealed = with_input(&server, &["encrypt", "t/there"], "hunter2");
    done(&server, &["export-key", "t/there", "--out", at("keyset")]);
    std::fs::write(at("published"), done(&server, &["import-key", "show"])).unwrap();
    done(
        &server,
        &["import-key", "wrap", "t/here", "--kind", "tink", "--to", at("published"), "--in", at("keyset"), "--out", at("wrapped")],
    );
    let send = |name| [&["import-key", "send", "t/here", "--create", "tink", "--in", at("wrapped")][..], &template(name)].concat();
    let (code, err) = refused(&server, &send("TINK_AEAD_AES256_GCM"), "");
    assert!(code == 8 && err.contains("as the template makes it"), "{code} {err}");
    done(&server, &send("TINK_AEAD_AES128_GCM"));
    assert_eq!(with_input(&server, &["decrypt", "t/here"], &sealed), "hunter2");
    let (code, err) = refused(&server, &["import-key", "send", "t/here", "--in", at("wrapped")], "");
    assert!(code == 8 && err.contains("brought in before"), "{code} {err}");
}

#[test]
fn many_lines_go_in_few_requests_and_each_has_its_own_end() {
    let server = server();
    done(&server, &["create", "k/a", "--kind", "aes256-gcm"]);
    let lines: String = (0..1200).map(|i| format!("line {i}\n")).collect();
    let sealed = with_input(&server, &["encrypt", "k/a", "--lines"], &lines);
    assert_eq!(sealed.lines().count(), 1200);
    assert_eq!(with_input(&server, &["decrypt", "k/a", "--lines"], &sealed), lines);
    let records = done(&server, &["audit", "query", "--key", "k/a", "--action", "encrypt", "--json"]);
    assert_eq!(records.lines().count(), 3, "{records}");
    assert!(records.contains("500 items") && !records.contains("line 7"));
    let mixed = format!("{}AQ==\n", sealed.lines().next().unwrap().to_owned() + "\n");
    let (code, out, err) = finish(command(&server, &["decrypt", "k/a", "--lines"]), &mixed);
    assert!(code == 8 && out == "line 0\n" && err.contains("item 2: "), "{code} {out} {err}");
}

#[test]
fn a_key_that_is_used_is_not_read() {
    let server = server();
    done(&server, &["create", "sealed", "--kind", "aes256-gcm"]);
    let (code, err) = refused(&server, &["export-key", "sealed", "--out", "-"], "");
    assert!(code == 4 && err.contains("not exportable") && !err.contains("can grant more"), "{code} {err}");
    let (code, err) = refused(&server, &["encrypt", "sealed"], &"x".repeat(3_000_000));
    assert!(code == 8 && err.contains("next: with `--out FILE` it is encrypted here"), "{code} {err}");
    done(&server, &["create", "used", "--kind", "hmac", "--exportable"]);
    let (code, err) = refused(&server, &["get", "used"], "");
    assert!(code == 4 && err.contains("used and not read"), "{code} {err}");
    let (code, err) = refused(&server, &["add", "used"], "mine");
    assert!(code == 8 && err.contains("made inside"), "{code} {err}");
}
