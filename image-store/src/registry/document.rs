//! Manifests and indexes, OCI and Docker schema 2, read strictly.
//!
//! OCI image specification, `manifest.md`, `image-index.md` and `descriptor.md`; Docker image manifest version 2, schema 2.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bennu_manifests::model::Digest;
use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

/// Media types of manifests.
pub const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
/// Media types of indexes.
pub const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Media types of configurations of images.
pub const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// The most layers that an image may have; overlayfs takes 500.
pub const MAX_LAYERS: usize = 256;
/// The most entries that an index may have.
pub const MAX_MANIFESTS: usize = 1024;

/// A document that says what an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// The manifest of one image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Vec<Descriptor>),
}

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// Something else, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its SHA-256 digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// What it runs on; in indexes.
    #[serde(default)]
    pub platform: Option<DescriptorPlatform>,
    /// What else is said about it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// What an entry of an index runs on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DescriptorPlatform {
    /// As `amd64`.
    pub architecture: String,
    /// As `linux`.
    pub os: String,
    /// As `v7`.
    #[serde(default)]
    pub variant: Option<String>,
}

/// What an image has to run on, in the words of OCI (those of Go's `GOOS` and `GOARCH`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// As `linux`.
    pub os: String,
    /// As `amd64`.
    pub architecture: String,
    /// As `v7`; `None` takes any.
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on `architecture`, as `amd64` or `arm64`.
    pub fn linux(architecture: &str) -> Self {
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// What this program runs on.
    pub fn host() -> Self {
        Self::linux(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        })
    }

    /// The entry of an index that runs on this platform: of several the first, but where no variant is wanted one that asks
    /// for none, or for the least, goes before others. A machine without AVX2 would not run what is for `amd64/v3`.
    pub fn choose<'a>(&self, index: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let fitting = index.iter().filter_map(|entry| {
            let platform = entry.platform.as_ref()?;
            let found = platform.variant.as_deref();
            let variant = match (&self.variant, found) {
                (Some(wanted), Some(found)) => wanted == found,
                _ => true,
            };
            let fits = platform.os == self.os && platform.architecture == self.architecture && variant;
            let demanding = self.variant.is_none() && found.is_some_and(|v| !self.is_baseline(v));
            fits.then_some((demanding, entry))
        });
        // The first of those that are equal.
        fitting.min_by_key(|(demanding, _)| *demanding).map(|(_, entry)| entry)
    }

    /// Whether every machine of this architecture that Linux distributions support has the variant (OCI image
    /// specification, image-index.md, "Platform Variants"; x86-64 psABI, "micro-architecture levels").
    fn is_baseline(&self, variant: &str) -> bool {
        match self.architecture.as_str() {
            "amd64" => variant == "v1",
            "arm64" => variant == "v8",
            _ => false,
        }
    }
}

/// This is no platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a platform is OS/ARCH or OS/ARCH/VARIANT, as linux/arm64 or linux/arm/v7")]
pub struct NotAPlatform;

impl FromStr for Platform {
    type Err = NotAPlatform;

    fn from_str(text: &str) -> Result<Self, NotAPlatform> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let sound = |part: &&str| (1..=32).contains(&part.len()) && part.bytes().all(word);
        let parts: Vec<_> = text.split('/').collect();
        if !parts.iter().all(sound) {
            return Err(NotAPlatform);
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(NotAPlatform),
        };
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is not JSON, or not of the expected form.
    #[error("the document is malformed")]
    Malformed(#[from] serde_json::Error),
    /// It could be read as a manifest and as an index (CVE-2021-41190).
    #[error("the document has both 'manifests' and 'layers'")]
    Ambiguous,
    /// It says to be something else than the server says (CVE-2021-41190).
    #[error("the document says to be '{stated}' and was served as '{served}'")]
    MediaType {
        /// In the document.
        stated: String,
        /// In the header.
        served: String,
    },
    /// Its type is not known, or does not fit what it contains.
    #[error("'{media_type}' is not supported here")]
    Unsupported {
        /// The type.
        media_type: String,
    },
    /// Docker's manifests before 2016: they do not say by digest what the layers contain, and tools stopped writing them.
    #[error("this is a manifest of Docker's schema 1; push the image anew with a current tool")]
    SchemaOne,
    /// Something else than an image, as a chart or a signature.
    #[error("this is no image: its configuration is of type '{config}'")]
    NotAnImage {
        /// The type of the configuration.
        config: String,
    },
    /// Too many parts.
    #[error("the document has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// The configuration says something that no process can be given.
    #[error("'{what}' of the image configuration {fault}")]
    Config {
        /// The member at fault.
        what: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The configuration names a layer by something else than a SHA-256 digest.
    #[error("the image configuration has a malformed diff id")]
    DiffId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// Reads a manifest or an index. `served` is the type by which it was served or referred to; a document that states a type has
/// to state that one.
///
/// # Errors
/// [`DocumentError`]
pub fn parse(bytes: &[u8], served: Option<&str>) -> Result<Document, DocumentError> {
    let wire: Wire = serde_json::from_slice(bytes)?;
    let media_type = match (&wire.media_type, served) {
        (Some(stated), Some(served)) if stated != served => {
            return Err(DocumentError::MediaType { stated: shown(stated), served: shown(served) });
        }
        (Some(media_type), _) => media_type.as_str(),
        (None, Some(served)) => served,
        // Kept documents are read without the header they came with; the form decides then.
        (None, None) if wire.manifests.is_some() => INDEX_TYPES[0],
        (None, None) => MANIFEST_TYPES[0],
    };
    let unsupported = || DocumentError::Unsupported { media_type: shown(media_type) };
    if wire.schema_version == 1 {
        return Err(DocumentError::SchemaOne);
    }
    if wire.schema_version != 2 {
        return Err(unsupported());
    }
    match (wire.manifests, wire.layers, wire.config) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err(DocumentError::Ambiguous),
        (Some(manifests), None, None) if INDEX_TYPES.contains(&media_type) => {
            if manifests.len() > MAX_MANIFESTS {
                return Err(DocumentError::TooMany { what: "manifests", limit: MAX_MANIFESTS });
            }
            Ok(Document::Index(manifests))
        }
        (None, Some(layers), Some(config)) if MANIFEST_TYPES.contains(&media_type) => {
            if layers.len() > MAX_LAYERS {
                return Err(DocumentError::TooMany { what: "layers", limit: MAX_LAYERS });
            }
            Ok(Document::Manifest(Manifest { config, layers }))
        }
        _ => Err(unsupported()),
    }
}

/// Refuses another media type than the one that is expected, where one is.
///
/// # Errors
/// [`DocumentError::MediaType`]
pub(crate) fn check_type(expected: Option<&str>, served: &str) -> Result<(), DocumentError> {
    match expected.filter(|expected| *expected != served) {
        Some(expected) => Err(DocumentError::MediaType { stated: shown(expected), served: shown(served) }),
        None => Ok(()),
    }
}

/// Refuses what is packed like an image and is none.
///
/// # Errors
/// [`DocumentError::NotAnImage`]
pub fn check_image(manifest: &Manifest) -> Result<(), DocumentError> {
    let config = manifest.config.media_type.as_str();
    if CONFIG_TYPES.contains(&config) {
        return Ok(());
    }
    Err(DocumentError::NotAnImage { config: shown(config) })
}

/// The diff ids of a configuration, the lowest first.
///
/// # Errors
/// [`DocumentError::DiffId`]
pub fn diff_ids(config: &ImageConfiguration) -> Result<Vec<Digest>, DocumentError> {
    config.rootfs().diff_ids().iter().map(|id| id.parse().map_err(|_| DocumentError::DiffId)).collect()
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
}

/// How the layer with this media type is compressed.
///
/// # Errors
/// [`DocumentError::Unsupported`] for anything else, layers that are to be fetched from elsewhere ("foreign") among them.
pub fn layer_compression(media_type: &str) -> Result<Compression, DocumentError> {
    Ok(match media_type {
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
            Compression::None
        }
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        other => return Err(DocumentError::Unsupported { media_type: shown(other) }),
    })
}

/// Text from a stranger, fit for a terminal.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(128).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn descriptor() -> String {
        format!(r#"{{"mediaType":"x","digest":"sha256:{HEX}","size":1}}"#)
    }

    fn manifest(extra: &str) -> String {
        let d = descriptor();
        format!(r#"{{"schemaVersion":2,"config":{d},"layers":[{d}]{extra}}}"#)
    }

    #[test]
    fn a_manifest_is_read_by_the_type_it_is_served_as() {
        let parsed = parse(manifest("").as_bytes(), Some(MANIFEST_TYPES[1])).expect("a manifest");
        assert!(matches!(parsed, Document::Manifest(m) if m.layers.len() == 1));
        assert!(matches!(
            parse(manifest("").as_bytes(), Some(INDEX_TYPES[0])),
            Err(DocumentError::Unsupported { .. })
        ));
        assert!(matches!(
            parse(manifest("").as_bytes(), Some("text/html")),
            Err(DocumentError::Unsupported { .. })
        ));
    }

    #[test]
    fn cve_2021_41190_a_document_with_two_meanings_is_refused() {
        let both = manifest(&format!(r#","manifests":[{}]"#, descriptor()));
        assert!(matches!(parse(both.as_bytes(), Some(MANIFEST_TYPES[0])), Err(DocumentError::Ambiguous)));
        let other = manifest(&format!(r#","mediaType":"{}""#, INDEX_TYPES[0]));
        assert!(matches!(
            parse(other.as_bytes(), Some(MANIFEST_TYPES[0])),
            Err(DocumentError::MediaType { .. })
        ));
    }

    #[test]
    fn cve_2024_3727_a_digest_that_is_a_path_is_refused() {
        for digest in
            ["sha256:../../x", &format!("sha256:{}", HEX.to_uppercase()), "sha512:00", "", "sha256:"]
        {
            let bad = manifest("").replace(&format!("sha256:{HEX}"), digest);
            assert!(matches!(parse(bad.as_bytes(), None), Err(DocumentError::Malformed(_))), "{digest}");
        }
    }

    #[test]
    fn the_platform_is_chosen_from_an_index() {
        let entry = |os: &str, architecture: &str, variant: Option<&str>| Descriptor {
            media_type: MANIFEST_TYPES[0].to_owned(),
            digest: Digest::from_bytes([0; 32]),
            size: 1,
            annotations: BTreeMap::new(),
            platform: Some(DescriptorPlatform {
                architecture: architecture.to_owned(),
                os: os.to_owned(),
                variant: variant.map(str::to_owned),
            }),
        };
        let index = [
            entry("windows", "amd64", None),
            entry("linux", "arm64", Some("v8")),
            entry("linux", "amd64", None),
        ];
        assert_eq!(Platform::linux("amd64").choose(&index), Some(&index[2]));
        assert_eq!(Platform::linux("arm64").choose(&index), Some(&index[1]));
        assert_eq!(Platform::linux("riscv64").choose(&index), None);
    }

    #[test]
    fn platforms_are_written_and_read_alike() {
        for text in ["linux/amd64", "linux/arm/v7", "freebsd/arm64"] {
            assert_eq!(text.parse::<Platform>().expect(text).to_string(), text);
        }
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", "linux/am d64"] {
            assert_eq!(text.parse::<Platform>(), Err(NotAPlatform), "{text}");
        }
    }

    #[test]
    fn a_baseline_machine_gets_the_entry_that_asks_for_least() {
        let entry = |size: u64, variant: Option<&str>| Descriptor {
            media_type: MANIFEST_TYPES[0].to_owned(),
            digest: Digest::from_bytes([0; 32]),
            size,
            annotations: BTreeMap::new(),
            platform: Some(DescriptorPlatform {
                architecture: "amd64".to_owned(),
                os: "linux".to_owned(),
                variant: variant.map(str::to_owned),
            }),
        };
        let chosen = |index: &[Descriptor]| Platform::linux("amd64").choose(index).map(|entry| entry.size);
        let (v3, v1, none) = (entry(3, Some("v3")), entry(1, Some("v1")), entry(0, None));
        assert_eq!(chosen(&[v3.clone(), none.clone()]), Some(0));
        assert_eq!(chosen(&[v3.clone(), v1.clone()]), Some(1));
        assert_eq!(chosen(&[v1.clone(), none.clone()]), Some(1));
        assert_eq!(chosen(std::slice::from_ref(&v3)), Some(3));
        let wanted = Platform { variant: Some("v3".to_owned()), ..Platform::linux("amd64") };
        assert_eq!(wanted.choose(&[v1, v3]).map(|entry| entry.size), Some(3));
    }
}
