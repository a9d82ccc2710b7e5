//! What `docker save` writes: `manifest.json`, and configurations and layers by the paths that it names (Docker image
//! specification 1.2, "Combined Image JSON + Filesystem Changeset Format").
//!
//! Such an archive has no manifest with a digest, so each image gets one here: a Docker manifest of schema 2 without spaces, its
//! keys in the order of that specification, the configuration as it is, and of each layer the bytes as they lie in the archive. The
//! same archive therefore gives the same digest everywhere. A layer that is not compressed is called by its diff id, and need not be
//! read for that.

use std::collections::BTreeMap;
use std::io;

use bennu_manifests::model::Digest;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use super::layout::{faulty, parsed, read};
use super::members::Members;
use super::{Elsewhere, Listed, OpenError, magic};
use crate::registry::document::{self, DocumentError, MANIFEST_TYPES, MAX_LAYERS, MAX_MANIFESTS, shown};
use crate::sha256::{self, HashingReader};
use crate::tar::EntryPath;

/// The media type of a configuration (Docker image manifest version 2, schema 2).
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The media type of a layer that is not compressed; `.gzip` or `.zstd` follows for one that is.
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// An image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    size: u64,
    digest: Digest,
}

/// The images of an archive, and where their parts are.
pub(super) fn images(members: &Members) -> Result<(Vec<Listed>, BTreeMap<Digest, Elsewhere>), OpenError> {
    const LIST: &str = "manifest.json";
    let saved: Vec<Saved> = parsed(LIST, &read(members, LIST)?)?;
    if saved.len() > MAX_MANIFESTS {
        return Err(OpenError::TooMany { what: "images", limit: MAX_MANIFESTS });
    }
    let mut elsewhere = BTreeMap::new();
    let images = saved.into_iter().map(|saved| image(members, saved, &mut elsewhere));
    let images = images.collect::<Result<_, _>>()?;
    Ok((images, elsewhere))
}

fn image(
    members: &Members,
    saved: Saved,
    elsewhere: &mut BTreeMap<Digest, Elsewhere>,
) -> Result<Listed, OpenError> {
    let Saved { config: config_name, repo_tags, layers } = saved;
    let config_name = normal(&config_name)?;
    let config = read(members, &config_name)?;
    let parsed = ImageConfiguration::from_reader(&config[..]).map_err(|error| {
        let malformed = serde::de::Error::custom(error);
        faulty(&config_name)(DocumentError::Malformed(malformed))
    })?;
    let diff_ids = document::diff_ids(&parsed).map_err(faulty(&config_name))?;
    if layers.len() > MAX_LAYERS {
        return Err(OpenError::TooMany { what: "layers", limit: MAX_LAYERS });
    }
    if diff_ids.len() != layers.len() {
        return Err(OpenError::LayerCount(shown(&config_name)));
    }
    let config_digest = sha256::digest(&config);
    elsewhere.insert(config_digest, Elsewhere::Member(config_name.into_bytes()));
    let mut descriptors = Vec::with_capacity(layers.len());
    for (name, diff_id) in layers.iter().zip(diff_ids) {
        let name = normal(name)?;
        let descriptor = layer(members, &name, diff_id)?;
        elsewhere.insert(descriptor.digest, Elsewhere::Member(name.into_bytes()));
        descriptors.push(descriptor);
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPES[1],
        config: Descriptor {
            media_type: CONFIG.to_owned(),
            size: config.len() as u64,
            digest: config_digest,
        },
        layers: descriptors,
    };
    let manifest = serde_json::to_vec(&manifest).expect("it has string keys and no fallible parts");
    let (digest, size) = (sha256::digest(&manifest), manifest.len() as u64);
    elsewhere.insert(digest, Elsewhere::Manifest(manifest));
    Ok(Listed {
        digest,
        size,
        media_type: MANIFEST_TYPES[1].to_owned(),
        artifact_type: None,
        names: repo_tags.unwrap_or_default(),
    })
}

fn layer(members: &Members, name: &str, diff_id: Digest) -> Result<Descriptor, OpenError> {
    let missing = || OpenError::Missing(shown(name));
    let member = name.as_bytes();
    let size = members.len(member)?.ok_or_else(missing)?;
    let first = members.read(member, 6)?.ok_or_else(missing)?;
    let (suffix, digest) = match magic(&first) {
        None => ("", diff_id),
        Some("gzip") => (".gzip", hashed(members, member)?.ok_or_else(missing)?),
        Some("zstd") => (".zstd", hashed(members, member)?.ok_or_else(missing)?),
        Some(other) => return Err(OpenError::Compressed(other)),
    };
    Ok(Descriptor { media_type: format!("{LAYER}{suffix}"), size, digest })
}

fn hashed(members: &Members, member: &[u8]) -> io::Result<Option<Digest>> {
    let Some(reader) = members.open(member)? else { return Ok(None) };
    let mut reader = HashingReader::new(reader);
    io::copy(&mut reader, &mut io::sink())?;
    Ok(Some(reader.finish().0))
}

/// The path of a member, as the scan has it.
fn normal(name: &str) -> Result<String, OpenError> {
    let path = EntryPath::parse(name.as_bytes()).ok();
    let text = path.and_then(|path| String::from_utf8(path.as_bytes().to_vec()).ok());
    text.ok_or_else(|| OpenError::Missing(shown(name)))
}
