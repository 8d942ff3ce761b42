//! Keys that are used, not read: encrypting a KiB against the floor, and signing against the bare library.
//!
//! Each use is a whole one: certificate verified, ACL checked, its audit record durable before the answer.

use anyhow::{Context as _, ensure};
use std::process::Command;

use super::Bench;
use super::figure::{Figure, Goal};
use super::floor::{Floor, absolute};
use super::load::{Closed, Load, Peer, Targets};
use super::server::Claviger;

/// Base64 of 1,024 bytes.
fn kibibyte() -> String {
    "QUFB".repeat(341) + "QQ=="
}

const CONNECTIONS: usize = 32;
const LEAST_ENCRYPTIONS: f64 = 0.70;
const LEAST_SIGNATURES: f64 = 0.60;
/// Signatures of one request.
const TOGETHER: usize = 64;

/// The figures of encrypting 1 KiB, with mutual TLS.
pub(super) fn encrypt(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    let claviger = Claviger::start(bench)?;
    let machine = user_of(bench, &claviger, "bench:aes", "aes256-gcm", "encrypt")?;
    let body = serde_json::json!({ "items": [{ "plaintext": kibibyte() }] }).to_string();
    let target = "/api/v1/keys/bench:aes/-/encrypt";
    let answer = machine.once(bench, "POST", target, Some(&body))?;
    ensure!(answer.status == 200 && answer.body.contains("ciphertext"), "encrypting: status {}: {}", answer.status, answer.body);
    let floor = Floor::start(bench, answer.length)?;
    let load = |target| Load {
        method: "POST",
        targets: Targets::One(target),
        body: Some(&body),
        connections: CONNECTIONS,
        length: None,
        count: None,
    };
    let pairs = bench.in_turn(|| floor.peer.closed(bench, &load("/")), || machine.closed(bench, &load(target)))?;
    let ratios: Vec<f64> = pairs.iter().map(|(floor, claviger)| claviger.requests_per_second / floor.requests_per_second).collect();
    let ratio = Figure::new(name, "of floor", &ratios)?;
    let (floors, clavigers): (Vec<Closed>, Vec<Closed>) = pairs.iter().copied().unzip();
    let mut figures = vec![ratio.with_goal_where(Goal::AtLeast(LEAST_ENCRYPTIONS), bench.disk.is_fast(), "fdatasync p50 < 0.1 ms")];
    figures.extend(absolute(name, &clavigers)?);
    figures.extend(absolute(&format!("{name}/floor"), &floors)?);
    Ok(figures)
}

/// The figures of signing with P-256, 64 messages in a request: what of a core's time the signatures themselves take.
pub(super) fn sign(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    let claviger = Claviger::start(bench)?;
    let machine = user_of(bench, &claviger, "bench:p256", "ecdsa-p256", "sign")?;
    let items: Vec<_> = (0..TOGETHER).map(|_| serde_json::json!({ "message": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" })).collect();
    let body = serde_json::json!({ "items": items }).to_string();
    let targets = Targets::One("/api/v1/keys/bench:p256/-/sign");
    let load = Load { method: "POST", targets, body: Some(&body), connections: 4, length: None, count: None };
    let pairs = bench.in_turn(|| bare(bench), || machine.closed(bench, &load))?;
    let each = |it: &Closed| it.server_cpu_us / TOGETHER as f64;
    let ratios: Vec<f64> = pairs.iter().map(|(bare, claviger)| bare / each(claviger)).collect();
    let bare: Vec<f64> = pairs.iter().map(|(bare, _)| *bare).collect();
    let clavigers: Vec<Closed> = pairs.iter().map(|(_, claviger)| *claviger).collect();
    let mut figures = vec![
        Figure::new(name, "of bare aws-lc", &ratios)?.with_goal(Goal::AtLeast(LEAST_SIGNATURES)),
        Figure::new(format!("{name}/bare"), "µs/signature", &bare)?,
    ];
    figures.extend(absolute(name, &clavigers)?);
    Ok(figures)
}

/// A key of a kind that the machine of the development folder may use, and that machine.
fn user_of(bench: &Bench, claviger: &Claviger, id: &str, kind: &str, right: &str) -> anyhow::Result<Peer> {
    let grant = serde_json::json!({ "principal": format!("machine:{}", claviger.machine_name()), "capabilities": [right] });
    let body = serde_json::json!({ "id": id, "kind": kind, "acl": [grant] }).to_string();
    let made = claviger.native_administrator()?.once(bench, "POST", "/api/v1/keys", Some(&body))?;
    ensure!(made.status == 201, "creating `{id}`: status {}: {}", made.status, made.body);
    let machine = claviger.native_machine()?;
    let headers = [machine.headers.clone(), vec!["Content-Type: application/json".to_owned()]].concat();
    Ok(Peer { headers, ..machine })
}

/// Microseconds of one signature by the library alone, on one core.
fn bare(bench: &Bench) -> anyhow::Result<f64> {
    let mut command = Command::new(bench.programs.join("xtask-floor"));
    let output = command.args(["--sign-seconds", &bench.window.as_secs_f64().to_string()]).output()?;
    ensure!(output.status.success(), "the bare library: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().context("the bare library's figure")
}
