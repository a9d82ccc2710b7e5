//! The images of a manifest that may still have to be pinned, and where they stand.

use std::ops::Range;

use crate::document::{Section, parse, read_text};
use crate::fault::{Faults, Invalid};
use crate::reference::{MAX_REFERENCE, UnpinnedRef};
use crate::values::reference_fault;

/// One `image` of a manifest, pinned or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpinnedImage {
    /// The bytes of the string in the text, with its quotes. A rewritten manifest has `"…"` with the pinned reference
    /// in their place; nothing in a reference needs escaping.
    pub span: Range<usize>,
    /// What it says.
    pub reference: UnpinnedRef,
}

/// Every image of the manifest `text`, in the order of the text; the pinned ones too, which have a digest.
///
/// Only the images are looked at, so that a manifest can be pinned while other things in it are not finished.
///
/// # Errors
///
/// A text that is no TOML, or references that are not well formed.
pub fn unpinned_images(text: &str) -> Result<Vec<UnpinnedImage>, Invalid> {
    let tree = parse(read_text(text.as_bytes())?)?;
    let faults = Faults::default();
    let mut images = Vec::new();
    let containers = Section::top(&tree, &faults).get("container").and_then(|item| item.section());
    for (_, container) in containers.map(|section| section.entries(usize::MAX)).unwrap_or_default() {
        let image = container.section().and_then(|mut section| section.get("image"));
        let read = |text: &str| text.parse().map_err(|error| reference_fault(text, &error));
        if let Some(image) = image.and_then(|item| item.read(2 * MAX_REFERENCE, read)) {
            images.push(UnpinnedImage { span: image.span, reference: image.value });
        }
    }
    images.sort_by_key(|image| image.span.start);
    faults.end(text, Some(images))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_wherever_they_are_written_and_can_be_replaced_in_place() {
        let text = "# top\ncontainer.a = { image = 'localhost/a:1' } # first\n\
                    [container.b]\n\"image\" = \"\"\"localhost/b\"\"\" # second\n\
                    unfinished = true\n[container.c.environment]\nimage = \"not one\"\n";
        let found = unpinned_images(text).expect("the images are sound");
        let literals: Vec<&str> = found.iter().map(|image| &text[image.span.clone()]).collect();
        assert_eq!(literals, ["'localhost/a:1'", "\"\"\"localhost/b\"\"\""]);
        let digest = crate::model::Digest::of(b"");
        let mut pinned = text.to_owned();
        for image in found.iter().rev() {
            pinned.replace_range(image.span.clone(), &format!("\"{}\"", image.reference.pin(digest)));
        }
        let again = unpinned_images(&pinned).expect("still sound");
        assert!(again.iter().all(|image| image.reference.digest == Some(digest)));
        assert!(pinned.contains("# first") && pinned.contains("# second"));
    }

    #[test]
    fn a_bad_reference_points_at_itself() {
        let text = "[container.a]\nimage = \"nginx\"\n[container.b]\nimage = 1\n";
        let invalid = unpinned_images(text).expect_err("both are wrong");
        let places: Vec<_> = invalid.errors.iter().map(|fault| (fault.line, fault.column)).collect();
        assert_eq!(places, [(2, 9), (4, 9)]);
        assert_eq!(
            invalid.errors[0].hint.as_deref(),
            Some("name the registry, as `docker.io/library/nginx`")
        );
    }
}
