//! What cargo says about the workspace, and the rules on who uses whom.
//!
//! The resolved graph has the features of the whole workspace, so `never_reach` is judged at its
//! worst; the shipped tree is asked for per artifact, as a user would build it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

use super::rules::{ARTIFACTS, CRATES, Crate, NEVER_SHIPPED, ONE_VERSION, TEST_ARROWS, TESTS_MAY_USE};
use crate::shell;

/// The part of `cargo metadata` that the rules are about.
#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) packages: Vec<Package>,
    pub(super) workspace_members: Vec<String>,
    pub(super) resolve: Resolve,
}

#[derive(Deserialize)]
pub(super) struct Package {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) manifest_path: PathBuf,
    pub(super) dependencies: Vec<Dependency>,
}

/// A dependency as the manifest has it.
#[derive(Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// `None` (normal), `dev` or `build`.
    pub(super) kind: Option<String>,
}

/// The graph with features and targets resolved.
#[derive(Deserialize)]
pub(super) struct Resolve {
    pub(super) nodes: Vec<Node>,
}

#[derive(Deserialize)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) deps: Vec<Edge>,
}

#[derive(Deserialize)]
pub(super) struct Edge {
    pub(super) pkg: String,
    pub(super) dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
pub(super) struct Kind {
    pub(super) kind: Option<String>,
}

impl Metadata {
    /// Asks cargo.
    pub(super) fn read() -> anyhow::Result<Self> {
        let mut command = shell::cargo(["metadata", "--format-version", "1"]);
        let text = shell::read(command.args(shell::locked()))?;
        serde_json::from_str(&text).context("reading what `cargo metadata` says")
    }

    fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Each of our crates and its folder, from the workspace's root.
    pub(super) fn member_folders(&self, root: &Path) -> Vec<(String, PathBuf)> {
        self.members()
            .filter_map(|package| {
                let folder = package.manifest_path.parent()?;
                let folder = folder.strip_prefix(root).unwrap_or(folder);
                Some((package.name.clone(), folder.to_owned()))
            })
            .collect()
    }

    /// Names of all packages that `package` reaches without tests, itself excluded.
    fn reach(&self, package: &Package) -> BTreeSet<&str> {
        let names: BTreeMap<&str, &str> = self.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
        let nodes: BTreeMap<&str, &Node> = self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let mut seen = BTreeSet::new();
        let mut open = vec![package.id.as_str()];
        while let Some(id) = open.pop() {
            let edges = nodes.get(id).map_or(&[][..], |node| &node.deps);
            for edge in edges.iter().filter(|edge| edge.is_for_more_than_tests()) {
                if seen.insert(edge.pkg.as_str()) {
                    open.push(&edge.pkg);
                }
            }
        }
        seen.iter().filter_map(|id| names.get(id).copied()).collect()
    }
}

impl Edge {
    fn is_for_more_than_tests(&self) -> bool {
        self.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))
    }
}

fn row(name: &str) -> Option<&'static Crate> {
    CRATES.iter().find(|row| row.name == name)
}

/// Findings about arrows between our crates.
pub(super) fn check_arrows(metadata: &Metadata) -> Vec<String> {
    let ours: BTreeSet<&str> = metadata.members().map(|it| it.name.as_str()).collect();
    let mut findings = Vec::new();
    for package in metadata.members() {
        let name = package.name.as_str();
        let Some(row) = row(name) else {
            findings.push(format!("crate `{name}` has no row in the table of crates"));
            continue;
        };
        for dependency in &package.dependencies {
            let used = dependency.name.as_str();
            if !ours.contains(used) || is_allowed(row, dependency) {
                continue;
            }
            let when = match dependency.kind.as_deref() {
                Some("dev") => " in its tests",
                _ => "",
            };
            findings.push(format!("`{name}` uses `{used}`{when}: a new arrow, which is a design decision"));
        }
    }
    findings
}

fn is_allowed(row: &Crate, dependency: &Dependency) -> bool {
    let used = dependency.name.as_str();
    let is_for_tests = dependency.kind.as_deref() == Some("dev");
    // A crate may name itself in its tests, to turn a feature on.
    let is_test_arrow = used == row.name || TESTS_MAY_USE.contains(&used) || TEST_ARROWS.contains(&(row.name, used));
    row.may_use.contains(&used) || (is_for_tests && is_test_arrow)
}

/// Findings about what our crates never use or reach.
pub(super) fn check_outside(metadata: &Metadata) -> Vec<String> {
    let mut findings = Vec::new();
    for package in metadata.members() {
        let name = package.name.as_str();
        let Some(row) = row(name) else { continue };
        let direct = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
            .map(|dependency| dependency.name.as_str());
        for used in direct.filter(|used| row.never_direct.contains(used)) {
            findings.push(format!("`{name}` names `{used}`, which it never may"));
        }
        let reach = metadata.reach(package);
        for used in row.never_reach.iter().filter(|used| reach.contains(**used)) {
            findings.push(format!("`{name}` reaches `{used}`, which it never may"));
        }
    }
    findings
}

/// A package and its version in a shipped tree.
type Shipped = BTreeSet<(String, String)>;

/// All packages of what we ship, for all targets, tests excluded.
pub(super) fn shipped_tree() -> anyhow::Result<Shipped> {
    let mut all = Shipped::new();
    for artifact in ARTIFACTS {
        let mut command = shell::cargo(["tree", "--package", artifact, "--target", "all"]);
        command.args(["--edges", "normal,build", "--prefix", "none"]).args(["--format", "{p}"]).args(shell::locked());
        all.extend(parse_tree(&shell::read(&mut command)?));
    }
    Ok(all)
}

/// Lines such as `rustls v0.23.46 (*)`.
fn parse_tree(text: &str) -> Shipped {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect()
}

/// Findings about the shipped tree.
pub(super) fn check_shipped(shipped: &Shipped) -> Vec<String> {
    let versions = |name: &str| -> Vec<&str> {
        let same = shipped.iter().filter(|(it, _)| it == name);
        same.map(|(_, version)| version.as_str()).collect()
    };
    let mut findings = Vec::new();
    for (name, why) in NEVER_SHIPPED {
        if !versions(name).is_empty() {
            findings.push(format!("`{name}` is in what we ship: {why}"));
        }
    }
    for name in ONE_VERSION {
        let found = versions(name);
        if found.len() > 1 {
            let found = found.join(" and ");
            findings.push(format!("`{name}` is shipped more than once: {found}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    /// A crate and what it uses, each with the kind of the dependency.
    type Ours<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);

    /// A workspace of our crates, and outside edges `(from, to)`.
    fn workspace(ours: &[Ours<'_>], outside: &[(&str, &str)]) -> Metadata {
        let mut names: BTreeSet<&str> = ours.iter().map(|(name, _)| *name).collect();
        let members: Vec<&str> = names.iter().copied().collect();
        let mut edges: Vec<(&str, &str, Option<&str>)> = Vec::new();
        for (name, uses) in ours {
            edges.extend(uses.iter().map(|(used, kind)| (*name, *used, *kind)));
        }
        edges.extend(outside.iter().map(|(from, to)| (*from, *to, None)));
        for (from, to, _) in &edges {
            names.extend([from, to]);
        }
        let of = |name: &str| -> Vec<(&str, Option<&str>)> {
            let same = edges.iter().filter(|edge| edge.0 == name);
            same.map(|(_, to, kind)| (*to, *kind)).collect()
        };
        let package = |name: &&str| -> Value {
            let uses: Vec<Value> = of(name).iter().map(|(to, kind)| json!({"name": to, "kind": kind})).collect();
            json!({"id": name, "name": name, "manifest_path": format!("/w/crates/{name}/Cargo.toml"),
                "dependencies": uses})
        };
        let node = |name: &&str| -> Value {
            let deps: Vec<Value> = of(name).iter().map(|(to, kind)| json!({"pkg": to, "dep_kinds": [{"kind": kind}]})).collect();
            json!({"id": name, "deps": deps})
        };
        serde_json::from_value(json!({
            "packages": names.iter().map(package).collect::<Vec<_>>(),
            "workspace_members": members,
            "resolve": {"nodes": names.iter().map(node).collect::<Vec<_>>()},
        }))
        .unwrap()
    }

    #[test]
    fn the_arrows_of_the_design_are_allowed() {
        let metadata = workspace(
            &[
                ("claviger-domain", &[("zeroize", None)]),
                ("claviger-ports", &[("claviger-domain", None)]),
                ("claviger-store", &[("claviger-ports", None), ("sqlx", None), ("claviger-testkit", Some("dev"))]),
                ("claviger-testkit", &[("claviger-store", None)]),
            ],
            &[("sqlx", "rustls")],
        );
        assert_eq!(check_arrows(&metadata), Vec::<String>::new());
        assert_eq!(check_outside(&metadata), Vec::<String>::new());
    }

    #[test]
    fn a_new_arrow_is_found() {
        let metadata = workspace(&[("claviger-store", &[("claviger-crypto", None)]), ("claviger-crypto", &[])], &[]);
        let findings = check_arrows(&metadata);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].starts_with("`claviger-store` uses `claviger-crypto`:"));
    }

    #[test]
    fn an_arrow_to_the_testkit_is_for_tests_only() {
        let metadata = workspace(
            &[
                ("claviger-wire", &[("claviger-testkit", None)]),
                ("claviger-domain", &[("claviger-testkit", Some("dev"))]),
                ("claviger-testkit", &[]),
            ],
            &[],
        );
        let findings = check_arrows(&metadata);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].contains("claviger-wire"));
    }

    #[test]
    fn a_test_arrow_against_the_layers_is_found() {
        let metadata = workspace(&[("claviger-domain", &[("claviger-engine", Some("dev"))]), ("claviger-engine", &[])], &[]);
        assert!(check_arrows(&metadata)[0].contains("in its tests"));
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        let findings = check_arrows(&workspace(&[("claviger-misc", &[])], &[]));
        assert_eq!(findings, ["crate `claviger-misc` has no row in the table of crates"]);
    }

    #[test]
    fn what_is_reached_through_others_is_found() {
        let metadata = workspace(&[("claviger-engine", &[("helper", None)])], &[("helper", "inner"), ("inner", "hyper")]);
        assert_eq!(check_outside(&metadata), ["`claviger-engine` reaches `hyper`, which it never may"]);
    }

    #[test]
    fn what_only_tests_use_is_not_reached() {
        let metadata = workspace(&[("claviger-domain", &[("tokio", Some("dev"))])], &[]);
        assert_eq!(check_outside(&metadata), Vec::<String>::new());
    }

    #[test]
    fn the_store_never_names_a_cipher() {
        let metadata = workspace(&[("claviger-store", &[("aws-lc-rs", None)])], &[]);
        assert_eq!(check_outside(&metadata), ["`claviger-store` names `aws-lc-rs`, which it never may"]);
    }

    #[test]
    fn a_second_provider_or_version_in_the_shipped_tree_is_found() {
        let good = "claviger v0.1.0 (/w/crates/claviger)\nrustls v0.23.46\nrustls v0.23.46 (*)\n";
        assert_eq!(check_shipped(&parse_tree(good)), Vec::<String>::new());
        let bad = parse_tree("rustls v0.23.46\nrustls v0.21.1\nring v0.17.8\n");
        let findings = check_shipped(&bad);
        assert_eq!(findings.len(), 2);
        assert!(findings[0].contains("`ring`"));
        assert!(findings[1].contains("v0.21.1 and v0.23.46"));
    }

    #[test]
    fn every_name_in_a_row_of_the_table_has_a_row() {
        let unknown = CRATES.iter().flat_map(|row| row.may_use).find(|used| row(used).is_none());
        assert_eq!(unknown, None);
    }
}
