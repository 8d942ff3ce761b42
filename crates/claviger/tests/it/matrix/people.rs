//! Who asks: everyone the tests know, how each proves himself, and his connection.

use claviger_testkit::{Answer, Client, Credential, TestServer};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use std::path::Path;

/// What somebody is, once he has proven it.
#[derive(Clone, Copy)]
pub(super) enum Me {
    User(&'static str, &'static [&'static str]),
    Machine(&'static str),
    Service(&'static str),
}

/// The certificate that somebody's connection has.
#[derive(Clone, Copy)]
pub(super) enum Certificate {
    None,
    /// The development machine's.
    Machine,
    /// The development service's.
    Service,
    /// One with a machine name and a SPIFFE ID.
    Both,
    /// The machine's name, vouched for by an authority that nobody trusts.
    ForeignMachine,
    /// The service's SPIFFE ID, the same.
    ForeignService,
}

/// Somebody who asks.
#[derive(Clone, Copy)]
pub(super) struct Person {
    pub(super) name: &'static str,
    /// In a few words, for the table.
    pub(super) who: &'static str,
    /// All that he is; nothing when he proves nothing.
    pub(super) is: &'static [Me],
    /// His `Authorization` on the native surface; empty for none.
    pub(super) native: &'static str,
    /// His `Authorization` on Knox's.
    pub(super) knox: &'static str,
    pub(super) certificate: Certificate,
}

const fn user(name: &'static str, who: &'static str, is: &'static [Me], native: &'static str, knox: &'static str) -> Person {
    Person { name, who, is, native, knox, certificate: Certificate::None }
}

pub(super) const SERVICE: &str = "spiffe://dev.claviger/service";

pub(super) const ALICE: Person = user("alice", "a user in no group", &[Me::User("alice", &[])], "Bearer alice-token", "0ualice-token");
pub(super) const CAROL: Person =
    user("carol", "a user in the groups `ops` and `night`", &[Me::User("carol", &["ops", "night"])], "Bearer carol-token", "0ucarol-token");
pub(super) const ROOT: Person =
    user("root", "a user who is admin of the empty prefix", &[Me::User("root", &[])], "Bearer root-token", "0uroot-token");
pub(super) const LEAD: Person =
    user("lead", "a user who is admin of a shorter prefix", &[Me::User("lead", &[])], "Bearer lead-token", "0ulead-token");
pub(super) const MACHINE: Person = Person {
    name: "machine",
    who: "the machine `dev-machine`",
    is: &[Me::Machine("dev-machine")],
    native: "",
    knox: "0tdev-machine",
    certificate: Certificate::Machine,
};
pub(super) const SERVICE_PERSON: Person = Person {
    name: "service",
    who: "the service `spiffe://dev.claviger/service`",
    is: &[Me::Service(SERVICE)],
    native: "",
    knox: "0sx",
    certificate: Certificate::Service,
};
/// Knox's `0t` with `spiffe-fallback`: one certificate proves a machine and a service.
pub(super) const BOTH: Person = Person {
    name: "both",
    who: "a machine `dev-both` and service `spiffe://dev.claviger/both` at once",
    is: &[Me::Machine("dev-both"), Me::Service("spiffe://dev.claviger/both")],
    native: "",
    knox: "0tdev-both",
    certificate: Certificate::Both,
};

/// Those who prove something.
pub(super) const PROVEN: [Person; 7] = [ALICE, CAROL, MACHINE, SERVICE_PERSON, BOTH, ROOT, LEAD];

/// Those who prove nothing.
pub(super) const UNPROVEN: [Person; 8] = [
    Person { name: "nobody", who: "no credential", is: &[], native: "", knox: "", certificate: Certificate::None },
    Person {
        name: "wrong token",
        who: "an unknown token",
        is: &[],
        native: "Bearer wrong-token",
        knox: "0uwrong-token",
        certificate: Certificate::None,
    },
    Person {
        name: "foreign machine",
        who: "a foreign authority's certificate for `dev-machine`",
        is: &[],
        native: "",
        knox: "0tdev-machine",
        certificate: Certificate::ForeignMachine,
    },
    Person {
        name: "foreign service",
        who: "a foreign authority's SVID",
        is: &[],
        native: "",
        knox: "0sx",
        certificate: Certificate::ForeignService,
    },
    Person {
        name: "bad token, good certificate",
        who: "an unknown token beside a good certificate",
        is: &[],
        native: "Bearer wrong-token",
        knox: "0uwrong-token",
        certificate: Certificate::Machine,
    },
    Person {
        name: "another's name",
        who: "a machine certificate and another machine's name",
        is: &[],
        native: "Machine dev-other",
        knox: "0tdev-other",
        certificate: Certificate::Machine,
    },
    Person {
        name: "claim alone",
        who: "a machine's name without a certificate",
        is: &[],
        native: "Machine dev-machine",
        knox: "0tdev-machine",
        certificate: Certificate::None,
    },
    Person {
        name: "the other surface's form",
        who: "the other surface's form of a good token",
        is: &[],
        native: "0ualice-token",
        knox: "Bearer alice-token",
        certificate: Certificate::None,
    },
];

/// Users of the server under test. The limit on failures is lifted: most of what is asked here fails.
pub(super) const CONFIG: &str = r#"
[auth]
failures_burst = 100000
[[dev.user]]
name = "alice"
token = "alice-token"
[[dev.user]]
name = "carol"
groups = ["ops", "night"]
token = "carol-token"
[[dev.user]]
name = "root"
token = "root-token"
[[dev.user]]
name = "lead"
token = "lead-token"
"#;

/// What goes over the wire, without the credential.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) body: Body,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    None,
    Json(serde_json::Value),
    Form(Vec<(&'static str, String)>),
}

impl Asked {
    pub(super) fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), body: Body::None }
    }

    pub(super) fn json(method: &'static str, target: impl Into<String>, body: serde_json::Value) -> Self {
        Self { body: Body::Json(body), ..Self::new(method, target) }
    }

    pub(super) fn form(method: &'static str, target: impl Into<String>, form: &[(&'static str, &str)]) -> Self {
        Self { body: Body::Form(form.iter().map(|(k, v)| (*k, (*v).to_owned())).collect()), ..Self::new(method, target) }
    }

    fn is_knox(&self) -> bool {
        self.target.starts_with("/v0/")
    }
}

/// Somebody's open connection.
pub(super) struct Voice {
    client: Client,
    native: String,
    knox: String,
}

impl Voice {
    /// The administrator's, who sets the stage.
    pub(super) fn admin(server: &TestServer) -> Self {
        Self { client: server.client().unwrap(), native: server.bearer(), knox: server.admin() }
    }

    pub(super) fn of(person: &Person, server: &TestServer) -> Self {
        Self { client: connect(person.certificate, server), native: person.native.to_owned(), knox: person.knox.to_owned() }
    }

    pub(super) fn ask(&mut self, asked: &Asked) -> Answer {
        self.ask_with(asked, &[])
    }

    /// Asks with more header fields.
    pub(super) fn ask_with(&mut self, asked: &Asked, more: &[(&str, &str)]) -> Answer {
        let Self { client, native, knox } = self;
        let answer = match &asked.body {
            Body::Form(form) => {
                let form: Vec<_> = form.iter().map(|(k, v)| (*k, v.as_str())).collect();
                client.knox(asked.method, &asked.target, knox, &form)
            }
            body => {
                let authorization = if asked.is_knox() { knox } else { native };
                let mut headers: Vec<(&str, &str)> = more.to_vec();
                if !authorization.is_empty() && more.iter().all(|(name, _)| *name != "Authorization") {
                    headers.push(("Authorization", authorization));
                }
                let bytes = match body {
                    Body::Json(json) => {
                        headers.push(("Content-Type", "application/json"));
                        serde_json::to_vec(json).unwrap()
                    }
                    _ => Vec::new(),
                };
                client.request(asked.method, &asked.target, &headers, &bytes)
            }
        };
        answer.unwrap_or_else(|e| panic!("{asked:?}: {e:#}"))
    }

    /// Asks, and what does not succeed is a mistake of the test.
    pub(super) fn must(&mut self, asked: &Asked) -> serde_json::Value {
        let answer = self.ask(asked);
        assert!((200..300).contains(&answer.status), "{asked:?}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// Follows changes until `done` says that the text so far is enough. The connection is of no use afterwards.
    pub(super) fn follow(&mut self, target: &str, done: impl Fn(&str) -> bool) -> String {
        let authorization = if self.native.is_empty() { String::new() } else { format!("Authorization: {}\r\n", self.native) };
        self.client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n").as_bytes()).unwrap();
        loop {
            let text = String::from_utf8_lossy(self.client.unread()).into_owned();
            if done(&text) {
                return text;
            }
            self.client.more().unwrap_or_else(|e| panic!("following {target}: {e:#}\n{text}"));
        }
    }
}

fn connect(certificate: Certificate, server: &TestServer) -> Client {
    match certificate {
        Certificate::None => server.client().unwrap(),
        Certificate::Machine => server.machine().unwrap(),
        Certificate::Service => server.service().unwrap(),
        Certificate::Both => connect_as(server, &["dev-both"], &["spiffe://dev.claviger/both"], false),
        Certificate::ForeignMachine => connect_as(server, &["dev-machine"], &[], true),
        Certificate::ForeignService => connect_as(server, &[], &[SERVICE], true),
    }
}

/// A connection with a certificate of these names, by the development authority or by a foreign one of the same name.
fn connect_as(server: &TestServer, dns: &[&str], uris: &[&str], foreign: bool) -> Client {
    let authority = match foreign {
        true => KeyPair::generate().unwrap(),
        false => KeyPair::from_pem(&std::fs::read_to_string(server.dir().join("ca.key")).unwrap()).unwrap(),
    };
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name.push(DnType::CommonName, "Claviger development CA");
    issuer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    issuer.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut leaf = CertificateParams::new(dns.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>()).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "leaf");
    leaf.subject_alt_names.extend(uris.iter().map(|u| SanType::URI((*u).try_into().unwrap())));
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &Issuer::new(issuer, authority)).unwrap();
    let credential = Credential::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    Client::connect(server.address(), Path::new(server.env("CLAVIGER_CA")), Some(credential)).unwrap()
}
