//! `claviger diff`.

use crate::command_line::{command, done, finish, newest, with_input};
use crate::server;
use serde_json::Value;

#[test]
fn versions_are_compared_and_neither_is_shown() {
    let server = server();
    with_input(&server, &["put", "app/env"], "USER=alice\nPASSWORD=hunter2-old\nGONE=x1\n");
    let first = newest(&server, "app/env");
    let (code, _, err) = finish(command(&server, &["diff", "app/env"]), "");
    assert!(code == 3 && err.contains("no two versions"), "{err}");
    with_input(&server, &["put", "app/env", "--no-promote"], "USER=alice\nPASSWORD=hunter2-new\nTOKEN=secret-token\n");
    let second = newest(&server, "app/env");

    let (code, out, err) = finish(command(&server, &["diff", "app/env"]), "");
    assert_eq!((code, err.as_str()), (1, ""));
    let expected = format!(
        "app/env: {first} (primary) and {second} (active) differ\nnames changed: PASSWORD\nnames added: TOKEN\nnames removed: GONE\n"
    );
    assert_eq!(out, expected);
    let (code, out, _) = finish(command(&server, &["diff", "app/env", &second, &first, "--json"]), "");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &found["equal"], &found["added"][0], found["from"].get("bytes")), (1, &false.into(), &"GONE".into(), None));
    assert!(!out.contains("hunter2") && !out.contains("secret-token") && !out.contains("alice"), "{out}");

    let (code, out, _) = finish(command(&server, &["diff", "app/env", &first, &first, "--sizes"]), "");
    assert!(code == 0 && out.contains("are equal") && out.contains("sizes: 40 and 40 bytes"), "{out}");
    with_input(&server, &["put", "db/pw"], "one");
    with_input(&server, &["put", "db/pw"], "three");
    let (code, out, _) = finish(command(&server, &["diff", "db/pw"]), "");
    assert!(code == 1 && out.lines().count() == 1 && out.contains("differ"), "nothing is told of one line: {out}");
    assert_eq!(finish(command(&server, &["diff", "db/pw", "1"]), "").0, 2);
    assert_eq!(finish(command(&server, &["diff", "db/pw", "1", "2"]), "").0, 3);
    assert_eq!(done(&server, &["audit", "query", "--json", "--action", "read", "--key", "app/env"]).lines().count(), 6);
    assert!(done(&server, &["versions", "db/pw"]).lines().count() > 2);
}
