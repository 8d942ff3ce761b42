//! The audit log as the application's port: records in, durable entries and line sinks out.

use crate::{AuditLog, LineSink, MAX_ENTRY, encode_ecs, record};
use claviger_domain::audit::Record;
use claviger_ports::{AuditError, AuditSink, LogCheckpoint};
use futures::future::BoxFuture;
use std::sync::Arc;

/// Writes each record to the log, and to the sinks that a site has set up beside it.
pub struct Recorder {
    log: Arc<AuditLog>,
    plain: Option<Arc<LineSink>>,
    ecs: Option<Arc<LineSink>>,
}

impl Recorder {
    /// A recorder to `log`; `plain` gets every record as it stands in the log, `ecs` as an Elastic Common Schema line.
    #[must_use]
    pub fn new(log: Arc<AuditLog>, plain: Option<Arc<LineSink>>, ecs: Option<Arc<LineSink>>) -> Self {
        Self { log, plain, ecs }
    }

    /// An entry to the sinks: a part of a record is a line of its own there too.
    fn lines(&self, record: &Record<'_>, entry: &[u8]) {
        if let Some(sink) = &self.plain {
            sink.line(entry);
        }
        if let Some(sink) = &self.ecs {
            sink.line(encode_ecs(record, entry));
        }
    }
}

impl AuditSink for Recorder {
    fn append(&self, record: &Record<'_>) -> BoxFuture<'static, Result<(), AuditError>> {
        let entry = record::encode(record);
        let kept = if entry.len() <= MAX_ENTRY {
            self.lines(record, &entry);
            self.log.append(entry)
        } else {
            let parts = record::encode_parts(record);
            parts.iter().for_each(|part| self.lines(record, part));
            self.log.append_all(&parts)
        };
        Box::pin(async move { kept.await.map(drop).map_err(unkept) })
    }

    fn checkpoint(&self) -> Option<LogCheckpoint> {
        let head = self.log.latest_checkpoint();
        (head.size > 0).then_some(LogCheckpoint { size: head.size, root: head.root })
    }

    fn is_short_of_space(&self) -> bool {
        self.log.is_short_of_space()
    }
}

fn unkept(error: crate::AuditError) -> AuditError {
    if error.is_full() { AuditError::Full } else { AuditError::Io(error.to_string()) }
}
