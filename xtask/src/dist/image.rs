//! An OCI image, made without a container engine: one layer with the static program, which runs as nobody in particular.
//!
//! The archive has the image layout of the OCI image specification 1.1 (image-layout.md); `skopeo`, `podman load`,
//! `docker load` (25 and later) and `ctr images import` read it.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::archive::{Entry, gzip, tar};
use super::sign::hex;
use super::source::Source;

/// Who the program is in the image.
const USER: u32 = 65_532;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Content and what names it.
struct Blob {
    media_type: &'static str,
    data: Vec<u8>,
}

impl Blob {
    fn digest(&self) -> String {
        hex(&Sha256::digest(&self.data))
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": format!("sha256:{}", self.digest()), "size": self.data.len() })
    }
}

/// Writes `claviger-VERSION-oci.tar`.
pub(super) fn write(source: &Source, program: &Path, out: &Path) -> anyhow::Result<()> {
    let mut plain = Vec::new();
    tar(files(program)?, source.epoch, &mut plain)?;
    let layer = gzip(Vec::new(), |gz| Ok(std::io::Write::write_all(gz, &plain)?))?;
    let layer = Blob { media_type: LAYER, data: layer };
    let config = blob(CONFIG, &config(source, &hex(&Sha256::digest(&plain)))?)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": [layer.descriptor()],
        "annotations": labels(source)?,
    });
    let manifest = blob(MANIFEST, &manifest)?;
    let mut named = manifest.descriptor();
    named["annotations"] = json!({ "org.opencontainers.image.ref.name": source.version });
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [named] });

    let mut entries = vec![
        Entry::file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#),
        Entry::file("index.json", 0o644, serde_json::to_vec(&index)?),
        Entry::folder("blobs/"),
        Entry::folder("blobs/sha256/"),
    ];
    entries.extend([layer, config, manifest].into_iter().map(|b| Entry::file(format!("blobs/sha256/{}", b.digest()), 0o644, b.data)));
    let path = out.join(format!("claviger-{}-oci.tar", source.version));
    tar(entries, source.epoch, File::create(&path).with_context(|| format!("making {}", path.display()))?)
}

fn blob(media_type: &'static str, value: &Value) -> anyhow::Result<Blob> {
    Ok(Blob { media_type, data: serde_json::to_vec(value)? })
}

/// The image's file system.
fn files(program: &Path) -> anyhow::Result<Vec<Entry>> {
    Ok(vec![
        Entry::folder("etc/"),
        Entry::file("etc/passwd", 0o644, format!("root:x:0:0:root:/:/sbin/nologin\nclaviger:x:{USER}:{USER}:claviger:/:/sbin/nologin\n")),
        Entry::file("etc/group", 0o644, format!("root:x:0:\nclaviger:x:{USER}:\n")),
        Entry::folder("usr/"),
        Entry::folder("usr/bin/"),
        Entry::file("usr/bin/claviger", 0o755, fs::read(program)?),
    ])
}

fn config(source: &Source, layer: &str) -> anyhow::Result<Value> {
    let created = created(source.epoch)?;
    Ok(json!({
        "created": created, "architecture": "amd64", "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"), "Entrypoint": ["/usr/bin/claviger"], "Cmd": ["--help"], "WorkingDir": "/",
            "Env": ["PATH=/usr/bin"], "Labels": labels(source)?, "StopSignal": "SIGTERM",
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": created, "created_by": "cargo xtask dist" }],
    }))
}

fn labels(source: &Source) -> anyhow::Result<Value> {
    Ok(json!({
        "org.opencontainers.image.title": "claviger",
        "org.opencontainers.image.version": source.version,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.created": created(source.epoch)?,
    }))
}

/// A time as RFC 3339 in UTC.
fn created(epoch: u64) -> anyhow::Result<String> {
    let time = OffsetDateTime::from_unix_timestamp(epoch.try_into()?)?;
    Ok(time.format(&Rfc3339)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_civil() {
        for (epoch, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(created(epoch).unwrap(), text);
        }
    }
}
