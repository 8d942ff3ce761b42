//! Telling chat of approvals: each notice is posted as JSON to every URL that the configuration names.
//!
//! # Guarantees
//! Nothing waits for a webhook, and nothing fails because of one. Each URL has queues and a task of its own. That an approval was
//! bypassed has a queue for itself and goes first, so that nobody hides it behind many requests. What does not fit into a queue, and what is not taken after [`ATTEMPTS`], is dropped with a warning. What is in a queue at a stop is lost: the
//! list of requests is the truth, this is a tap on the shoulder.

use crate::config::WebhookConfig;
use crate::native::approval_info;
use crate::outbound::{Outbound, OutboundError, Url};
use aws_lc_rs::hmac;
use bytes::Bytes;
use claviger_domain::{SecretBytes, Timestamp};
use claviger_engine::Notice;
use claviger_wire::native::unix_to_rfc3339;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Notices that wait in one queue of one URL at most.
const QUEUE: usize = 256;
/// How often one notice is tried.
const ATTEMPTS: u32 = 8;
/// The pause after the first attempt; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;
/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The channel that the engine tells its notices to, and the task that hands them on. It ends with the engine.
pub(crate) fn channel() -> (mpsc::Sender<Notice>, mpsc::Receiver<Notice>) {
    mpsc::channel(QUEUE)
}

/// Notices for one URL that are not posted yet.
struct Queues<Q> {
    /// Of what bypassed approvals.
    alerts: Q,
    others: Q,
}

fn queues() -> (Queues<mpsc::Sender<Bytes>>, Queues<mpsc::Receiver<Bytes>>) {
    let ((alerts, next_alert), (others, next_other)) = (mpsc::channel(QUEUE), mpsc::channel(QUEUE));
    (Queues { alerts, others }, Queues { alerts: next_alert, others: next_other })
}

/// Where one URL's notices go.
struct Hook {
    url: Url,
    shown: String,
    key: Option<Arc<SecretBytes>>,
    outbound: Outbound,
    pause: Duration,
}

/// Posts what comes through `notices`, until it ends.
///
/// # Errors
/// When a file cannot be read or a URL is of no use.
pub(crate) fn start(config: &WebhookConfig, notices: mpsc::Receiver<Notice>) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let key = config.key_file.as_ref().map(|path| read_key(path).with_context(|| format!("reading {}", path.display()))).transpose()?;
    let key = key.map(Arc::new);
    let needs_roots = config.urls.iter().any(|url| url.starts_with("https://"));
    let roots = match needs_roots {
        true => Some(std::fs::read(&config.ca).with_context(|| format!("reading {}", config.ca.display()))?),
        false => None,
    };
    let outbound = Outbound::new(roots.as_deref(), TIMEOUT, config.loopback_http).map_err(anyhow::Error::from)?;
    let mut all = Vec::new();
    for url in &config.urls {
        let (senders, receivers) = queues();
        let hook = Hook {
            url: Url::parse(url, config.loopback_http)?,
            shown: place(url),
            key: key.clone(),
            outbound: outbound.clone(),
            pause: PAUSE,
        };
        tokio::spawn(hook.run(receivers));
        all.push(senders);
    }
    tokio::spawn(hand_out(notices, all));
    Ok(())
}

/// A URL for log lines: its path may be a secret that lets anybody post.
fn place(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default().to_owned()
}

fn read_key(path: &std::path::Path) -> anyhow::Result<SecretBytes> {
    let mut key = std::fs::read(path)?;
    while key.last().is_some_and(u8::is_ascii_whitespace) {
        key.pop();
    }
    anyhow::ensure!(key.len() >= 16, "a webhook's key has at least 16 bytes");
    Ok(SecretBytes::new(key))
}

async fn hand_out(mut notices: mpsc::Receiver<Notice>, all: Vec<Queues<mpsc::Sender<Bytes>>>) {
    while let Some(notice) = notices.recv().await {
        let body = Bytes::from(payload(&notice).to_string());
        let is_alert = notice.about.is_err();
        for queue in all.iter().map(|queues| if is_alert { &queues.alerts } else { &queues.others }) {
            if queue.try_send(body.clone()).is_err() {
                tracing::warn!("a notice for a webhook is dropped: {QUEUE} others wait for it");
            }
        }
    }
}

impl Hook {
    async fn run(self, Queues { mut alerts, mut others }: Queues<mpsc::Receiver<Bytes>>) {
        loop {
            let body = tokio::select! {
                biased;
                Some(body) = alerts.recv() => body,
                Some(body) = others.recv() => body,
                else => return,
            };
            self.deliver(body).await;
        }
    }

    async fn deliver(&self, body: Bytes) {
        let mut pause = self.pause;
        for attempt in 1..=ATTEMPTS {
            let why = match self.post(body.clone()).await {
                Ok(status) if status.is_success() => return,
                // What it does not take now it does not take later.
                Ok(status) if status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429) => {
                    return tracing::warn!(%status, "webhook {}: a notice is not taken", self.shown);
                }
                Ok(status) => format!("it answered {status}"),
                Err(error) => error.to_string(),
            };
            if attempt == ATTEMPTS {
                return tracing::warn!(%why, "webhook {}: a notice is dropped after {ATTEMPTS} attempts", self.shown);
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn post(&self, body: Bytes) -> Result<http::StatusCode, OutboundError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut headers = vec![(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        if let Some(key) = &self.key {
            let signature = signature(key, now, &body);
            if let Ok(value) = HeaderValue::from_str(&signature) {
                headers.push((HeaderName::from_static("claviger-signature"), value));
            }
        }
        self.outbound.send(Method::POST, &self.url, &headers, body, ANSWER).await.map(|fetched| fetched.status)
    }
}

/// `t=SECONDS,v1=HEX`: the HMAC-SHA-256 of the seconds, a full stop and the body, so that an old body cannot be shown as new.
fn signature(key: &SecretBytes, seconds: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    let hex: String = context.sign().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

/// Between half of a pause and all of it.
fn jittered(pause: Duration) -> Duration {
    let half = pause / 2;
    let [byte] = claviger_crypto::random::<1>();
    half + half * u32::from(byte) / 256
}

/// A notice as chat takes it (`text`) and as programs do.
fn payload(notice: &Notice) -> Value {
    let Notice { what, at, by, about } = notice;
    let (approval, text) = match about {
        Ok(shown) => {
            let info = approval_info(shown);
            let mut text = format!("Approval {}: {by} {} to {}", info.id, verb(what), info.summary);
            if *what == "asked" {
                text.push_str(&format!(" - {}", info.reason));
            }
            for change in info.changes.iter().take(20) {
                text.push_str(&format!("\n    {change}"));
            }
            (serde_json::to_value(&info).unwrap_or(Value::Null), text)
        }
        Err(bypassed) => (Value::Null, format!("ALERT: {by}: {bypassed}")),
    };
    json!({ "text": escaped(&text), "event": what, "at": time(*at), "by": by, "approval": approval })
}

fn verb(what: &str) -> &str {
    match what {
        "asked" => "asks",
        "approved" => "agreed",
        "rejected" => "said no",
        "withdrawn" => "no longer asks",
        "expired" => "let run out the request",
        _ => "used it",
    }
}

fn time(at: Timestamp) -> String {
    unix_to_rfc3339(at)
}

/// Chat takes `<…>` for commands, such as one that calls everybody; what people wrote must not become one.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn bypassed(text: &str) -> Notice {
        Notice { what: "bypassed", at: Timestamp(0), by: "eve".to_owned(), about: Err(text.to_owned()) }
    }

    #[test]
    fn a_signature_is_over_time_and_body_and_known_to_other_programs() {
        // echo -n '1.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let key = SecretBytes::new(b"0123456789abcdef".to_vec());
        let signed = signature(&key, 1, b"{}");
        assert_eq!(signed, "t=1,v1=2af693cb56b22c16912222aeefdc75a01de562bf70ee2015f41ecea48382997f");
        assert_ne!(signature(&key, 2, b"{}"), signed);
    }

    #[test]
    fn what_people_wrote_is_no_command_of_the_chat() {
        let text = payload(&bypassed("<!channel> & all"))["text"].as_str().unwrap().to_owned();
        assert_eq!(text, "ALERT: eve: &lt;!channel&gt; &amp; all");
    }

    /// Answers each connection with the next status and gives back the bodies.
    async fn receiver(statuses: &'static [u16]) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            for status in statuses {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let mut part = [0; 4096];
                while !String::from_utf8_lossy(&request).ends_with('}') {
                    let n = stream.read(&mut part).await.unwrap();
                    request.extend_from_slice(&part[..n]);
                }
                seen.push(String::from_utf8(request).unwrap());
                let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            seen
        });
        (url, task)
    }

    fn hook(url: &str) -> Hook {
        Hook {
            url: Url::parse(url, true).unwrap(),
            shown: place(url),
            key: Some(Arc::new(SecretBytes::new(b"0123456789abcdef".to_vec()))),
            outbound: Outbound::new(None, TIMEOUT, true).unwrap(),
            pause: Duration::from_millis(1),
        }
    }

    #[tokio::test]
    async fn a_notice_is_posted_signed_and_again_until_it_is_taken() {
        let (url, task) = receiver(&[503, 429, 200]).await;
        let body = Bytes::from(payload(&bypassed("x")).to_string());
        hook(&url).deliver(body.clone()).await;
        let seen = task.await.unwrap();
        assert_eq!(seen.len(), 3);
        for request in seen {
            let (head, sent) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("POST /hook HTTP/1.1"), "{head}");
            let given = head.lines().find_map(|l| l.strip_prefix("claviger-signature: ")).unwrap();
            let seconds = given.strip_prefix("t=").and_then(|g| g.split(',').next()).unwrap().parse().unwrap();
            assert_eq!(given, signature(&SecretBytes::new(b"0123456789abcdef".to_vec()), seconds, sent.as_bytes()));
            assert_eq!(sent.as_bytes(), &*body);
        }
    }

    #[tokio::test]
    async fn that_an_approval_was_bypassed_is_not_hidden_behind_many_requests() {
        let (url, task) = receiver(&[200, 200]).await;
        let (senders, receivers) = queues();
        let (told, notices) = mpsc::channel(QUEUE + 2);
        for _ in 0..=QUEUE {
            senders.others.try_send(Bytes::from_static(b"{}")).ok();
        }
        told.send(bypassed("the glass")).await.unwrap();
        drop(told);
        hand_out(notices, vec![senders]).await;
        let posting = tokio::spawn(hook(&url).run(receivers));
        let seen = task.await.unwrap();
        posting.abort();
        assert!(seen[0].contains("ALERT: eve: the glass"), "{}", seen[0]);
        assert!(seen[1].ends_with("{}"), "{}", seen[1]);
    }

    #[tokio::test]
    async fn what_is_refused_for_good_is_not_tried_again() {
        let (url, task) = receiver(&[404]).await;
        hook(&url).deliver(Bytes::from_static(b"{}")).await;
        assert_eq!(task.await.unwrap().len(), 1);
    }

    #[test]
    fn log_lines_name_the_host_and_not_the_path_that_lets_anybody_post() {
        assert_eq!(place("https://hooks.example.com/services/T0/B0/secret"), "hooks.example.com");
    }
}
