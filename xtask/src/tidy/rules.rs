//! The rules themselves, as tables.
//!
//! A change here is a design decision: say why in the same commit.

/// What one of our crates may use.
pub(super) struct Crate {
    pub(super) name: &'static str,
    /// Our crates that it may use, other than in tests.
    pub(super) may_use: &'static [&'static str],
    /// Crates that it never names itself.
    pub(super) never_direct: &'static [&'static str],
    /// Crates that it never reaches, however far down.
    pub(super) never_reach: &'static [&'static str],
}

const DOMAIN: &str = "claviger-domain";
const WIRE: &str = "claviger-wire";
const PORTS: &str = "claviger-ports";
const CRYPTO: &str = "claviger-crypto";
const ENGINE: &str = "claviger-engine";
const STORE: &str = "claviger-store";
const AUDIT: &str = "claviger-audit";
const AUTHN: &str = "claviger-authn";
const SERVER: &str = "claviger-server";
const CLIENT: &str = "claviger-client";
const NODE: &str = "claviger-node";
const TESTKIT: &str = "claviger-testkit";

/// The server's side, which code at a caller never holds.
const SERVER_SIDE: &[&str] = &[ENGINE, STORE, AUDIT, AUTHN, CRYPTO, PORTS, SERVER, "sqlx", "hyper"];

/// The table of DESIGN §2: a new arrow or a crate without a row is a finding.
pub(super) const CRATES: &[Crate] = &[
    Crate {
        name: DOMAIN,
        may_use: &[],
        never_direct: &["libc"],
        never_reach: &["tokio", "futures", "serde", "serde_json", "hyper", "sqlx", "mio"],
    },
    Crate { name: WIRE, may_use: &[DOMAIN], never_direct: &[], never_reach: &["tokio", "tonic", "sqlx", "hyper"] },
    Crate { name: PORTS, may_use: &[DOMAIN], never_direct: &["aws-lc-rs"], never_reach: &["sqlx", "hyper"] },
    Crate { name: CRYPTO, may_use: &[DOMAIN, PORTS], never_direct: &[], never_reach: &["sqlx", "hyper", "tokio", "rustls"] },
    Crate { name: ENGINE, may_use: &[DOMAIN, PORTS, CRYPTO], never_direct: &[], never_reach: &["sqlx", "hyper", "axum", "rustls"] },
    Crate {
        name: STORE,
        may_use: &[DOMAIN, PORTS],
        // It is handed sealed bytes and owns no key.
        never_direct: &["aws-lc-rs", "aws-lc-sys", "rustls"],
        never_reach: &["hyper", CRYPTO, WIRE],
    },
    Crate { name: AUDIT, may_use: &[DOMAIN, PORTS], never_direct: &[], never_reach: &["sqlx", "hyper"] },
    Crate { name: AUTHN, may_use: &[DOMAIN], never_direct: &[], never_reach: &["sqlx", "hyper"] },
    Crate {
        name: SERVER,
        may_use: &[DOMAIN, PORTS, CRYPTO, ENGINE, STORE, AUDIT, AUTHN, WIRE],
        never_direct: &["kube"],
        never_reach: &["kube", CLIENT],
    },
    Crate { name: CLIENT, may_use: &[WIRE, DOMAIN], never_direct: &[], never_reach: SERVER_SIDE },
    Crate {
        name: NODE,
        may_use: &[CLIENT, WIRE, CRYPTO, DOMAIN],
        // What runs on a machine holds no authority and no database.
        never_direct: &[PORTS],
        never_reach: &[ENGINE, STORE, AUDIT, AUTHN, SERVER, "sqlx", "hyper"],
    },
    Crate {
        name: "claviger",
        // Tink keysets are made and merged where the command runs.
        may_use: &[SERVER, NODE, CLIENT, WIRE, CRYPTO, DOMAIN, AUDIT],
        never_direct: &["sqlx", "hyper"],
        never_reach: &[TESTKIT],
    },
    Crate {
        name: TESTKIT,
        may_use: &[DOMAIN, PORTS, CRYPTO, ENGINE, STORE, AUDIT, AUTHN, WIRE, SERVER, CLIENT],
        never_direct: &[],
        never_reach: &[],
    },
    Crate { name: "xtask", may_use: &[], never_direct: &[], never_reach: &["tokio", "rustls"] },
    Crate { name: "xtask-floor", may_use: &[], never_direct: &[], never_reach: &[] },
    // The bench runs a thousand agents in one process.
    Crate { name: "xtask-load", may_use: &[NODE], never_direct: &[], never_reach: &["hyper"] },
];

/// Crates of ours that any crate may use, but in tests only.
pub(super) const TESTS_MAY_USE: &[&str] = &[TESTKIT];

/// Crates of ours that one crate's tests may use besides: (user, used).
pub(super) const TEST_ARROWS: &[(&str, &str)] = &[("xtask-load", "xtask-floor")];

/// Packages of what we ship; their trees are searched for all targets.
pub(super) const ARTIFACTS: &[&str] = &["claviger"];

/// Never in a shipped tree, and why.
pub(super) const NEVER_SHIPPED: &[(&str, &str)] = &[
    ("ring", "a second crypto provider"),
    ("openssl-sys", "a second crypto provider"),
    ("native-tls", "TLS of the system instead of rustls"),
    ("rsa", "not constant in time (RUSTSEC-2023-0071)"),
    (TESTKIT, "only for tests"),
];

/// At most one version of each in a shipped tree.
pub(super) const ONE_VERSION: &[&str] = &["rustls", "hyper", "aws-lc-rs", "aws-lc-sys"];

/// Lines of code below which a crate counts as empty.
pub(super) const LEAST_CODE_LINES: usize = 10;

/// Longest source file, in lines.
pub(super) const MOST_LINES: usize = 1_200;

/// Where a forbidden text is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// Code, without comments and the contents of strings.
    Code,
    /// The same without what only tests compile.
    ShippedCode,
    /// The file as it is.
    Everything,
}

/// A text that may stand in some folders only.
pub(super) struct Text {
    pub(super) text: &'static str,
    pub(super) within: Within,
    /// Beginnings of paths, from the workspace's root.
    pub(super) allowed_in: &'static [&'static str],
    pub(super) why: &'static str,
}

/// Folders of which no part ships.
const TOOLS: &str = "xtask/";
const TEST_TOOLS: &str = "crates/testkit/";

pub(super) const TEXTS: &[Text] = &[
    Text {
        text: ".expose()",
        within: Within::ShippedCode,
        allowed_in: &[
            "crates/domain/",
            "crates/crypto/",
            // A presented token is hashed there, which is where it enters.
            "crates/authn/src/token.rs",
            // The seed of tickets becomes a key there.
            "crates/authn/src/login.rs",
            "crates/wire/",
            "crates/server/",
            "crates/client/",
            "crates/node/",
            "crates/claviger/",
            TEST_TOOLS,
        ],
        why: "plaintext is touched only by crypto and where it enters or leaves",
    },
    Text { text: "todo!(", within: Within::Code, allowed_in: &[], why: "what is not written yet is left out" },
    Text { text: "unimplemented!(", within: Within::Code, allowed_in: &[], why: "what is not written yet is left out" },
    Text { text: "dbg!(", within: Within::Code, allowed_in: &[], why: "it prints whatever it is given" },
    Text {
        text: "println!(",
        within: Within::ShippedCode,
        allowed_in: &["crates/claviger/", "crates/server/", TOOLS, TEST_TOOLS],
        why: "libraries do not print (`println!` and `eprintln!`): return a value or use tracing",
    },
    Text {
        text: "process::exit(",
        within: Within::ShippedCode,
        allowed_in: &["crates/claviger/", TOOLS],
        why: "only `main` decides how the process ends",
    },
    Text {
        text: "SystemTime::now(",
        within: Within::ShippedCode,
        allowed_in: &[
            "crates/domain/",
            "crates/ports/",
            "crates/audit/",
            "crates/server/",
            "crates/client/",
            "crates/claviger/",
            TOOLS,
            TEST_TOOLS,
        ],
        why: "time comes in as an argument or from a `Clock`",
    },
    Text {
        text: "allow(unsafe_code)",
        within: Within::Code,
        // Of the node agent: what asks the kernel for the groups of who is connected, and what gives the program's pages back.
        allowed_in: &[
            "crates/crypto/",
            "crates/audit/",
            "crates/server/",
            "crates/claviger/",
            "crates/node/src/serve/peer.rs",
            "crates/node/src/program_pages.rs",
        ],
        why: "unsafe code stays where memory and the process are hardened",
    },
    // Split, so that this table does not find itself.
    Text { text: concat!("/work", "/main"), within: Within::Everything, allowed_in: &[], why: "a path of one machine" },
    Text { text: concat!("/work", "/shared"), within: Within::Everything, allowed_in: &[], why: "a path of one machine" },
    Text { text: concat!("/root", "/"), within: Within::Everything, allowed_in: &[], why: "a path of one machine" },
    Text { text: concat!("/home", "/"), within: Within::Everything, allowed_in: &[], why: "a path of one machine" },
];
