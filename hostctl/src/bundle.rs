//! `bundle`: all that a manifest needs in one file, for sites without a network.
//!
//! ```text
//! FILE, FILE.sig ─► artifact ─┐
//!                             ├─► oci-archive ─► verify ─► unpack, and `store import --all`
//! registries ─► images ───────┘
//! ```

pub(crate) mod args;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bennu_image_store::archive::{
    self, ArtifactError, CopyError, Files, Form, LayoutWriter, Part, REF_NAME, WriteError,
};
use bennu_image_store::registry::document::Platform;
use bennu_image_store::source::Source;
use bennu_manifests::model::{Digest, ImageRef, Manifest};
use bennu_manifests::{Floors, HostFacts, MAX_DOCUMENT, MAX_SIGNATURE_FILE, NotAccepted};
use jiff::Timestamp;
use serde::Serialize;

use crate::check::not_valid;
use crate::exit::{Code, Failure, Outcome};
use crate::files;
use crate::reach::Reach;
use crate::render::{Out, bytes, counted, facts, printable};
use crate::store::{Display, not_pulled};
use crate::verify::trust;

use args::{Bundle, Create, Unpack, Verify};

/// What says that a layout is a bundle, and of which version.
const BUNDLE: &str = "dev.bennu.bundle";
/// The type of the artifact with the manifest, and of its first part.
const MANIFEST_TYPE: &str = "application/vnd.bennu.manifest.v1+toml";
/// The type of its second part, the signatures.
const SIGNATURES_TYPE: &str = "application/vnd.bennu.signatures.v1";

/// What is in a bundle.
#[derive(Debug, Serialize)]
struct Contents {
    bundle: String,
    /// The digest of the manifest.
    manifest: Digest,
    images: Vec<ImageRef>,
    /// Bytes of all images.
    size: u64,
}

impl Contents {
    fn text(&self) -> String {
        let images: String = self.images.iter().map(|image| format!("{image}\n")).collect();
        let size = format!("{}, {}", counted(self.images.len(), "image"), bytes(self.size));
        let lines =
            [("bundle", self.bundle.clone()), ("manifest", self.manifest.to_string()), ("images", size)];
        images + &facts(&lines)
    }
}

/// Carries one command out.
pub(crate) async fn run(command: &Bundle, now: Timestamp, out: &mut Out) -> Outcome {
    match command {
        Bundle::Create(args) => create(args, out).await,
        Bundle::Verify(args) => verify(args, now, out).await,
        Bundle::Unpack(args) => unpack(args, out),
    }
}

async fn create(args: &Create, out: &mut Out) -> Outcome {
    let text = files::read(&args.file, MAX_DOCUMENT)?;
    let manifest = bennu_manifests::check(&text).map_err(|invalid| not_valid(&args.file, &text, invalid))?;
    let sig_path = files::sig_path(&args.file);
    let sig =
        files::read(&sig_path, MAX_SIGNATURE_FILE).map_err(|e| e.advice("sign it first: hostctl sign"))?;
    let not_written = |error: WriteError| {
        let code = if matches!(error, WriteError::Exists(_)) { Code::Invalid } else { Code::Failed };
        Failure::new(code, "write the bundle").because(error)
    };
    let mut layout = LayoutWriter::create(&args.out, Form::Archive).map_err(not_written)?;
    let part = |media_type: &str, title: &str, bytes: &[u8]| Part {
        media_type: media_type.to_owned(),
        title: title.to_owned(),
        bytes: bytes.to_owned(),
    };
    let parts = [part(MANIFEST_TYPE, "host.toml", &text), part(SIGNATURES_TYPE, "host.toml.sig", &sig)];
    let mut listed = vec![layout.artifact(MANIFEST_TYPE, &parts).map_err(not_written)?];

    let (platform, images) = (platform(&manifest, args.arch.as_deref()), images(&manifest));
    let mut clients = BTreeMap::new();
    for image in &images {
        if !clients.contains_key(&image.registry) {
            let hint = manifest.registries.get(&image.registry).is_some_and(|registry| registry.plain_http);
            let reach = Reach { plain_http: args.reach.plain_http || hint, ..args.reach.clone() };
            clients.insert(&image.registry, reach.client(&image.registry).await?);
        }
        let source = Source::registry(&clients[&image.registry], image);
        let name = image.to_string();
        let display = Display::new(name.clone(), out.json());
        let copied = archive::copy(&source, &name, &image.digest, &platform, &mut layout, &display).await;
        display.end();
        let mut described = copied.map_err(|error| match error {
            CopyError::Pull(error) => not_pulled(error),
            CopyError::Write(error) => not_written(error),
            error => Failure::failed("fetch the images").because(error),
        })?;
        described.annotations.insert(REF_NAME.to_owned(), tagged(image));
        listed.push(described);
    }
    let size = layout.size();
    let version = BTreeMap::from([(BUNDLE.to_owned(), "1".to_owned())]);
    layout.finish(&listed, &version).map_err(not_written)?;
    let bundle = args.out.display().to_string();
    let contents = Contents { bundle, manifest: Digest::of(&text), images, size };
    out.result(&contents, Contents::text)?;
    Ok(0)
}

async fn verify(args: &Verify, now: Timestamp, out: &mut Out) -> Outcome {
    let trust = trust(&args.trust)?;
    let files = opened(&args.bundle)?;
    let (text, sig) = manifest_of(&files, &args.bundle)?;
    // Where it is not valid it has no audience, and the rules before the audience say so.
    let audience = bennu_manifests::check(&text).map(|manifest| manifest.header.audience).unwrap_or_default();
    let arch = args.arch.clone().or(audience.arch).unwrap_or_default();
    let host = HostFacts { arch, labels: audience.labels };
    let now = args.now.unwrap_or(now);
    let verified = bennu_manifests::verify(&text, &sig, &trust, &Floors::default(), &host, now);
    let verified = verified.map_err(|error| match error {
        NotAccepted::Refused(refusal) => {
            let reason = printable(&refusal.reason);
            let what = format!("the manifest in {} is refused: {reason}", args.bundle.display());
            Failure::refused(refusal.rule.code(), what)
        }
        NotAccepted::Invalid(invalid) => not_valid(&args.bundle, &text, invalid),
    })?;
    let manifest = verified.manifest();
    let (platform, images) = (platform(manifest, args.arch.as_deref()), images(manifest));
    let source = Source::Archive(Arc::new(files));
    let mut size = 0;
    for image in &images {
        let checked = archive::check(&source, &image.to_string(), &image.digest, &platform).await;
        size += checked.map_err(|error| match error {
            CopyError::Pull(error) => not_pulled(error),
            error => Failure::failed("read the bundle").because(error),
        })?;
    }
    let bundle = args.bundle.display().to_string();
    let contents = Contents { bundle, manifest: verified.sha256(), images, size };
    out.result(&contents, Contents::text)?;
    Ok(0)
}

fn unpack(args: &Unpack, out: &mut Out) -> Outcome {
    #[derive(Debug, Serialize)]
    struct Unpacked {
        manifest: String,
        signatures: String,
    }
    let (text, sig) = manifest_of(&opened(&args.bundle)?, &args.bundle)?;
    let sig_path = files::sig_path(&args.out);
    for path in [&args.out, &sig_path] {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::invalid(format!("{} is there already", path.display())));
        }
    }
    files::replace(&args.out, &text, 0o644)?;
    files::replace(&sig_path, &sig, 0o644)?;
    let unpacked =
        Unpacked { manifest: args.out.display().to_string(), signatures: sig_path.display().to_string() };
    out.result(&unpacked, |u| format!("{}\n{}\n", u.manifest, u.signatures))?;
    Ok(0)
}

fn opened(bundle: &Path) -> Result<Files, Failure> {
    let none = || Failure::invalid(format!("{} is no bundle", bundle.display()));
    if !bundle.exists() {
        return Err(Failure::not_found(format!("there is no file {}", bundle.display())));
    }
    Files::open(bundle).map_err(|error| none().because(error))?.ok_or_else(none)
}

/// The manifest and its signatures, each with the digest that the bundle says, and nothing else checked.
fn manifest_of(bundle: &Files, path: &Path) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let parts = bundle.artifact(MANIFEST_TYPE).map_err(|error| {
        let code = match error {
            ArtifactError::Digest(_) => Code::Refused,
            ArtifactError::Missing(_) => Code::NotFound,
            ArtifactError::Read(_) => Code::Failed,
            _ => Code::Invalid,
        };
        Failure::new(code, format!("find the manifest in {}", path.display())).because(error)
    })?;
    let of = |media_type: &str, max: usize| {
        let mut found = parts.iter().filter(|part| part.media_type == media_type);
        match (found.next(), found.next()) {
            (Some(part), None) if part.bytes.len() <= max => Ok(part.bytes.clone()),
            _ => Err(Failure::invalid(format!(
                "{} has not one {media_type} of at most {max} bytes",
                path.display()
            ))),
        }
    };
    Ok((of(MANIFEST_TYPE, MAX_DOCUMENT)?, of(SIGNATURES_TYPE, MAX_SIGNATURE_FILE)?))
}

/// Every image that a manifest names, each once.
fn images(manifest: &Manifest) -> Vec<ImageRef> {
    let containers = manifest.containers.values().map(|container| &container.image);
    let jobs = manifest.jobs.values().map(|job| &job.container.image);
    let os = manifest.os.iter().filter_map(|os| os.image.as_ref());
    let mut seen = BTreeSet::new();
    containers.chain(jobs).chain(os).filter(|image| seen.insert(image.to_string())).cloned().collect()
}

fn platform(manifest: &Manifest, arch: Option<&str>) -> Platform {
    match arch.or(manifest.header.audience.arch.as_deref()) {
        Some(arch) => Platform::linux(arch),
        None => Platform::host(),
    }
}

/// The name of an image without its digest, as other tools take it.
fn tagged(image: &ImageRef) -> String {
    let tag = image.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
    format!("{}/{}{tag}", image.registry, image.repository)
}
