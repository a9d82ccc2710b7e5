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
    self, BUNDLE, BUNDLE_VERSION, BundleError, CopyError, Files, Form, IMAGE_SIGNATURES_TYPE, LayoutWriter,
    MANIFEST_TYPE, Part, REF_NAME, SIGNATURES_TYPE, SignedManifest, WriteError,
};
use bennu_image_store::policy;
use bennu_image_store::registry::document::Platform;
use bennu_image_store::source::Source;
use bennu_manifests::model::{Digest, ImageRef, Manifest};
use bennu_manifests::{Floors, HostFacts, MAX_DOCUMENT, MAX_SIGNATURE_FILE, NotAccepted, Trust};
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
    let mut signatures = Vec::new();
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
        if manifest.image_policies.keys().any(|prefix| policy::covers(prefix, image)) {
            let found = clients[&image.registry].signatures(image).await;
            let found = found.map_err(|error| {
                Failure::failed(format!("look for the signatures of {image}")).because(error)
            })?;
            if found.is_empty() {
                let what = format!("{image} needs signatures by an image-policy, and nobody signed it");
                return Err(Failure::refused("image.unsigned", what));
            }
            let bytes = serde_json::to_vec(&found).expect("signatures are plain data");
            signatures.push(part(IMAGE_SIGNATURES_TYPE, &image.digest.to_string(), &bytes));
        }
    }
    if !signatures.is_empty() {
        listed.push(layout.artifact(IMAGE_SIGNATURES_TYPE, &signatures).map_err(not_written)?);
    }
    let size = layout.size();
    let version = BTreeMap::from([(BUNDLE.to_owned(), BUNDLE_VERSION.to_owned())]);
    layout.finish(&listed, &version).map_err(not_written)?;
    let bundle = args.out.display().to_string();
    let contents = Contents { bundle, manifest: Digest::of(&text), images, size };
    out.result(&contents, Contents::text)?;
    Ok(0)
}

async fn verify(args: &Verify, now: Timestamp, out: &mut Out) -> Outcome {
    let trust = trust(&args.trust)?;
    let files = opened(&args.bundle)?;
    let SignedManifest { manifest: text, signatures: sig } = manifest_of(&files, &args.bundle)?;
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
    require_signatures(&files, &args.bundle, manifest, &trust, &images)?;
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

/// Refuses a bundle without the signatures that its manifest's image policies ask for.
fn require_signatures(
    files: &Files,
    path: &Path,
    manifest: &Manifest,
    trust: &Trust,
    images: &[ImageRef],
) -> Result<(), Failure> {
    let policies = policy::declared(manifest, trust)
        .map_err(|error| Failure::invalid("the image policies of the manifest").because(error))?;
    let signatures = files.image_signatures().map_err(|error| unreadable(path, error))?;
    for image in images {
        if let Some(policy) = policy::governing(&policies, image) {
            let kept = signatures.get(&image.digest).map_or(&[][..], Vec::as_slice);
            policy::decide(policy, image, kept)
                .map_err(|error| Failure::refused("image.unsigned", printable(&error.to_string())))?;
        }
    }
    Ok(())
}

fn unpack(args: &Unpack, out: &mut Out) -> Outcome {
    #[derive(Debug, Serialize)]
    struct Unpacked {
        manifest: String,
        signatures: String,
    }
    let SignedManifest { manifest: text, signatures: sig } =
        manifest_of(&opened(&args.bundle)?, &args.bundle)?;
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

pub(crate) fn opened(bundle: &Path) -> Result<Files, Failure> {
    let none = || Failure::invalid(format!("{} is no bundle", bundle.display()));
    if !bundle.exists() {
        return Err(Failure::not_found(format!("there is no file {}", bundle.display())));
    }
    Files::open(bundle).map_err(|error| none().because(error))?.ok_or_else(none)
}

pub(crate) fn manifest_of(bundle: &Files, path: &Path) -> Result<SignedManifest, Failure> {
    bundle.signed_manifest().map_err(|error| unreadable(path, error))
}

/// A bundle at `path` of which something cannot be read.
pub(crate) fn unreadable(path: &Path, error: BundleError) -> Failure {
    Failure::new(error.fault().into(), format!("read {}", path.display())).because(error)
}

/// Every image that a manifest names, each once.
fn images(manifest: &Manifest) -> Vec<ImageRef> {
    let mut seen = BTreeSet::new();
    manifest.images().filter(|image| seen.insert(image.to_string())).cloned().collect()
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
