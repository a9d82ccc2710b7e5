//! `verify-image`: whether enough keys signed an image, decided with the code of hosts.

use std::path::Path;

use bennu_image_store::cosign::NamedKey;
use bennu_image_store::policy::{Policy, RequireError, require};
use bennu_manifests::UnpinnedRef;
use bennu_manifests::model::ImageRef;
use serde::Serialize;

use crate::cli::VerifyImage;
use crate::exit::{Failure, Outcome};
use crate::keyfile;
use crate::pin;
use crate::render::{Out, printable};

/// An image that enough keys signed.
#[derive(Debug, Serialize)]
struct Verified {
    image: ImageRef,
    /// The names of the keys that did.
    signers: Vec<String>,
    threshold: usize,
}

/// Verifies.
pub(crate) async fn run(args: &VerifyImage, out: &mut Out) -> Outcome {
    let wanted: UnpinnedRef = args
        .reference
        .parse()
        .map_err(|e| Failure::invalid(format!("'{}' is no image", args.reference)).because(e))?;
    let keys = args.keys.iter().map(|key| named(key)).collect::<Result<Vec<_>, _>>()?;
    let prefix = format!("{}/{}", wanted.registry, wanted.repository);
    let policy = Policy::new(&prefix, keys, args.threshold)
        .map_err(|e| Failure::invalid("these keys and this threshold make no sense").because(e))?;
    let client = args.reach.client(&wanted.registry).await?;
    let digest = client.resolve(&wanted).await.map_err(|error| pin::failed(&wanted, error))?;
    let image = wanted.pin(digest);
    let signers = require(&client, &[policy], &image, &[]).await.map_err(|error| match error {
        RequireError::Registry { source, .. } => pin::failed(&wanted, source),
        error => Failure::refused("image.unsigned", printable(&error.to_string())),
    })?;
    let verified = Verified { image, signers: signers.into_iter().collect(), threshold: args.threshold };
    out.result(&verified, |v| format!("{}\nsigned by {}\n", v.image, v.signers.join(", ")))?;
    Ok(0)
}

/// `NAME=PUBFILE`, or a file alone, which is its own name.
fn named(argument: &str) -> Result<NamedKey, Failure> {
    let (name, file) = argument.split_once('=').unwrap_or((argument, argument));
    Ok(NamedKey { name: name.to_owned(), key: keyfile::read(Path::new(file))? })
}
