//! `pin`: what each tag means now is asked of its registry and written into the manifest.
//!
//! Only the strings of images are replaced, so comments, order and layout stay as their author left them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bennu_image_store::registry::document::{Document, Platform, parse};
use bennu_image_store::registry::{Client, ClientOptions, RegistryError, Repository, Tls};
use bennu_manifests::model::Digest;
use bennu_manifests::{Fault, Invalid, MAX_DOCUMENT, UnpinnedImage, UnpinnedRef, unpinned_images};
use serde::{Deserialize, Serialize};

use crate::check::not_valid;
use crate::cli::Pin;
use crate::exit::{Code, Failure, Outcome};
use crate::files;
use crate::reach::connect;
use crate::render::{Out, counted, progress};

/// What was done.
#[derive(Debug, Serialize)]
struct Pinned {
    file: String,
    /// Whether the file was written.
    changed: bool,
    images: Vec<PinnedImage>,
}

#[derive(Debug, Serialize)]
struct PinnedImage {
    /// As it was written before.
    before: UnpinnedRef,
    /// As it is written now.
    after: UnpinnedRef,
}

/// The parts of a manifest that say how to ask; the whole of it need not be valid yet.
#[derive(Debug, Default, Deserialize)]
struct Hints {
    #[serde(default)]
    registry: BTreeMap<String, RegistryHint>,
    #[serde(default, rename = "config")]
    configs: BTreeMap<String, ConfigHint>,
    #[serde(default)]
    audience: AudienceHint,
}

#[derive(Debug, Default, Deserialize)]
struct RegistryHint {
    #[serde(default, rename = "plain-http")]
    plain_http: bool,
    ca: Option<String>,
    #[serde(default, rename = "token-servers")]
    token_servers: BTreeSet<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ConfigHint {
    #[serde(default)]
    content: String,
}

#[derive(Debug, Default, Deserialize)]
struct AudienceHint {
    arch: Option<String>,
}

/// Pins.
pub(crate) async fn run(args: &Pin, out: &mut Out) -> Outcome {
    let via = via(&args.via)?;
    let bytes = files::read(&args.file, MAX_DOCUMENT)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|e| Failure::invalid(format!("{} is not UTF-8", args.file.display())).because(e))?;
    let images = unpinned_images(text).map_err(|invalid| not_valid(&args.file, &bytes, invalid))?;
    // Where the hints are of a wrong type, `check` will say so; until then there are none.
    let hints: Hints = toml::from_str(text).unwrap_or_default();
    let named = images.iter().filter_map(|image| to_ask(&image.reference, args.update));
    let named = named.map(|wanted| wanted.registry).collect();
    let registries = Registries::new(args, &hints, via, named).await?;
    let mut asked: BTreeMap<UnpinnedRef, Digest> = BTreeMap::new();
    let mut changes = Vec::new();
    for image in &images {
        let Some(wanted) = to_ask(&image.reference, args.update) else { continue };
        let digest = match asked.get(&wanted) {
            Some(digest) => *digest,
            None => {
                progress(&format!("asking {} for {wanted}", registries.address(&wanted.registry)));
                let digest = registries.ask(&wanted).await?;
                if let Some(arch) = &hints.audience.arch {
                    registries.check_arch(&wanted, &digest, arch).await?.map_err(|found| {
                        not_valid(&args.file, &bytes, wrong_arch(text, image, &found, arch))
                    })?;
                }
                asked.insert(wanted.clone(), digest);
                digest
            }
        };
        changes.push((image, wanted.pin(digest)));
    }
    changes.retain(|(image, after)| image.reference.pinned().as_ref() != Some(after));
    let mut pinned = text.to_owned();
    // From the end, so that the places of those before stay right.
    for (image, after) in changes.iter().rev() {
        pinned.replace_range(image.span.clone(), &format!("\"{after}\""));
    }
    if !changes.is_empty() {
        unchanged_since(&args.file, &bytes)?;
        files::replace(&args.file, pinned.as_bytes(), 0o644)?;
    }
    let done = Pinned {
        file: args.file.display().to_string(),
        changed: !changes.is_empty(),
        images: changes
            .into_iter()
            .map(|(image, after)| PinnedImage { before: image.reference.clone(), after: after.into() })
            .collect(),
    };
    out.result(&done, |done| {
        let lines: String = done.images.iter().map(|image| format!("{}\n", image.after)).collect();
        let count = match done.images.len() {
            0 => "nothing to pin".to_owned(),
            count => format!("{} pinned", counted(count, "image")),
        };
        format!("{lines}{count} in {}\n", done.file)
    })?;
    Ok(0)
}

/// What to ask a registry for; `None` where the image stays as it is.
fn to_ask(reference: &UnpinnedRef, update: bool) -> Option<UnpinnedRef> {
    match (&reference.digest, &reference.tag) {
        (None, _) => Some(reference.clone()),
        (Some(_), Some(_)) if update => Some(UnpinnedRef { digest: None, ..reference.clone() }),
        // A digest without a tag cannot be anything else another day.
        (Some(_), _) => None,
    }
}

/// Somebody may have saved the file in an editor while registries were asked.
fn unchanged_since(file: &Path, before: &[u8]) -> Result<(), Failure> {
    if files::read(file, MAX_DOCUMENT)? == before {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{} changed while its images were looked up; nothing was written",
        file.display()
    )))
}

/// `REGISTRY=ADDR` pairs.
fn via(pairs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut via = BTreeMap::new();
    for pair in pairs {
        // A registry is what may stand before the first slash of a reference.
        let sound = |registry: &str| {
            !registry.contains('/') && format!("{registry}/a").parse::<UnpinnedRef>().is_ok()
        };
        let Some((registry, address)) = pair.split_once('=').filter(|(a, b)| sound(a) && sound(b)) else {
            return Err(Failure::invalid(format!("'{pair}' is not REGISTRY=ADDR"))
                .advice("both are HOST[:PORT], as --via 10.0.2.2:5000=127.0.0.1:5000"));
        };
        via.insert(registry.to_owned(), address.to_owned());
    }
    Ok(via)
}

impl RegistryHint {
    /// Adds what the command line and the folders of this machine do not say better.
    fn add(
        &self,
        options: &mut ClientOptions,
        registry: &str,
        configs: &BTreeMap<String, ConfigHint>,
    ) -> Result<(), Failure> {
        if !self.token_servers.is_empty() {
            let all = options.token_servers.entry(registry.to_owned()).or_default();
            all.extend(self.token_servers.iter().cloned());
        }
        let ca = self.ca.as_ref().and_then(|name| Some((name, configs.get(name)?)));
        if let Some((name, config)) = ca
            && !options.tls.contains_key(registry)
        {
            let tls = Tls::default().with_authorities(config.content.as_bytes());
            let tls = tls.map_err(|e| {
                Failure::invalid(format!("the config `{name}` is no authority for {registry}")).because(e)
            })?;
            options.tls.insert(registry.to_owned(), tls);
        }
        Ok(())
    }
}

/// Registries, and where they are asked.
struct Registries {
    client: Client,
    via: BTreeMap<String, String>,
}

impl Registries {
    /// Those in `named` will be asked.
    async fn new(
        args: &Pin,
        hints: &Hints,
        via: BTreeMap<String, String>,
        named: BTreeSet<String>,
    ) -> Result<Self, Failure> {
        let mut options = args.reach.options()?;
        let plain = hints.registry.iter().filter(|(_, hint)| hint.plain_http);
        let address = |name: &String| via.get(name).unwrap_or(name).clone();
        options.plain_http = plain.map(|(name, _)| address(name)).collect::<BTreeSet<_>>();
        for registry in &named {
            // A login belongs to a registry's address: what is asked in its place has its own.
            args.reach.add(&mut options, &address(registry)).await?;
            if let Some(hint) = hints.registry.get(registry) {
                hint.add(&mut options, &address(registry), &hints.configs)?;
            }
        }
        Ok(Self { client: connect(options)?, via })
    }

    fn address<'a>(&'a self, registry: &'a str) -> &'a str {
        self.via.get(registry).map_or(registry, String::as_str)
    }

    async fn ask(&self, wanted: &UnpinnedRef) -> Result<Digest, Failure> {
        let at = UnpinnedRef { registry: self.address(&wanted.registry).to_owned(), ..wanted.clone() };
        self.client.resolve(&at).await.map_err(|error| failed(wanted, error))
    }

    /// Whether the image can run on `arch`; what it is for instead is the inner error.
    async fn check_arch(
        &self,
        wanted: &UnpinnedRef,
        digest: &Digest,
        arch: &str,
    ) -> Result<Result<(), String>, Failure> {
        /// The part of an image's configuration that says what it runs on (OCI image specification, config.md).
        #[derive(Deserialize)]
        struct Config {
            architecture: String,
            os: String,
        }
        let repository = Repository {
            registry: self.address(&wanted.registry).to_owned(),
            name: wanted.repository.clone(),
        };
        let failed = |error| failed(wanted, error);
        let served = self.client.manifest(&repository, digest).await.map_err(failed)?;
        let document = parse(&served.bytes, Some(&served.media_type)).map_err(|e| failed(e.into()))?;
        let platform = Platform::linux(arch);
        Ok(match document {
            Document::Index(entries) if platform.choose(&entries).is_some() => Ok(()),
            Document::Index(entries) => {
                let named = entries.iter().filter_map(|entry| entry.platform.as_ref());
                let named: BTreeSet<String> = named.map(|p| format!("{}/{}", p.os, p.architecture)).collect();
                Err(named.into_iter().collect::<Vec<_>>().join(", "))
            }
            Document::Manifest(manifest) => {
                let config = &manifest.config;
                let config =
                    self.client.small_blob(&repository, &config.digest, config.size).await.map_err(failed)?;
                let config: Config = serde_json::from_slice(&config).map_err(|e| {
                    Failure::refused(
                        "image.malformed",
                        format!("the configuration of {wanted} cannot be read"),
                    )
                    .because(e)
                })?;
                let fits = config.os == platform.os && config.architecture == platform.architecture;
                if fits { Ok(()) } else { Err(format!("{}/{}", config.os, config.architecture)) }
            }
        })
    }
}

/// Points at an image that cannot run on the hosts of the manifest.
fn wrong_arch(text: &str, image: &UnpinnedImage, found: &str, arch: &str) -> Invalid {
    let start = image.span.start;
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let fault = Fault {
        line: 1 + text[..start].bytes().filter(|b| *b == b'\n').count(),
        column: 1 + text[line_start..start].chars().count(),
        span: image.span.clone(),
        message: format!("this image is for {}", crate::render::printable(found)),
        hint: Some(format!("the manifest is for linux/{arch}: see `arch` of its audience")),
    };
    Invalid { errors: vec![fault], more: 0 }
}

/// A registry's refusal as an exit code.
pub(crate) fn failed(wanted: &UnpinnedRef, error: RegistryError) -> Failure {
    let (code, advice) = match &error {
        RegistryError::NotFound { .. } => (Code::NotFound, None),
        RegistryError::Insecure { .. } => (
            Code::Refused,
            Some(
                "--ca names a registry's own authority, --plain-http allows HTTP without TLS; what is pulled is checked by its digest",
            ),
        ),
        error if error.is_refusal() => (Code::Refused, None),
        RegistryError::Network { .. } => {
            (Code::Failed, Some("--via REGISTRY=ADDR asks for it at another address"))
        }
        _ => (Code::Failed, None),
    };
    let failure = Failure::new(code, format!("look up {wanted}")).because(error);
    match advice {
        Some(advice) => failure.advice(advice),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_change_is_asked_for() {
        let digest = format!("@sha256:{}", "0".repeat(64));
        let asked = |text: &str, update| {
            let reference: UnpinnedRef = text.parse().expect("it is a reference");
            to_ask(&reference, update).map(|wanted| wanted.to_string())
        };
        assert_eq!(asked("localhost/a:1", false).as_deref(), Some("localhost/a:1"));
        assert_eq!(asked("localhost/a", false).as_deref(), Some("localhost/a"));
        assert_eq!(asked(&format!("localhost/a:1{digest}"), false), None);
        assert_eq!(asked(&format!("localhost/a:1{digest}"), true).as_deref(), Some("localhost/a:1"));
        assert_eq!(asked(&format!("localhost/a{digest}"), true), None);
    }

    #[test]
    fn via_names_two_registries() {
        assert!(via(&["10.0.2.2:5000=127.0.0.1:5000".to_owned()]).is_ok());
        for wrong in ["a", "=", "a.b=", "=a.b", "a.b=c d", "a.b/c=d.e"] {
            assert!(via(&[wrong.to_owned()]).is_err(), "{wrong} was taken");
        }
    }
}
