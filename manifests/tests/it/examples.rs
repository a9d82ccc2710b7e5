//! The examples are valid as soon as they are pinned.

use bennu_manifests::model::{Digest, Manifest};
use bennu_manifests::{check, unpinned_images};

const DEMO: &str = include_str!("../../examples/demo.toml");
const SECOND: &str = include_str!("../../examples/demo-second.toml");

/// As `hostctl pin` does it, with made-up digests.
fn pin(text: &str) -> String {
    let mut pinned = text.to_owned();
    for image in unpinned_images(text).expect("the images are sound").iter().rev() {
        let digest = Digest::of(image.reference.to_string().as_bytes());
        pinned.replace_range(image.span.clone(), &format!("\"{}\"", image.reference.pin(digest)));
    }
    pinned
}

fn checked(text: &str) -> Manifest {
    let text = pin(text);
    check(text.as_bytes()).unwrap_or_else(|invalid| panic!("{}", invalid.render("example", &text)))
}

#[test]
fn without_pinning_only_the_digests_are_missing() {
    for (text, images) in [(DEMO, 2), (SECOND, 3)] {
        let invalid = check(text.as_bytes()).expect_err("the tags are not pinned");
        assert_eq!(invalid.errors.len(), images);
        assert!(invalid.errors.iter().all(|fault| fault.message.contains("not pinned")), "{invalid:#?}");
    }
}

#[test]
fn the_second_example_adds_one_container_changes_one_and_leaves_one() {
    let (first, second) = (checked(DEMO), checked(SECOND));
    let name = |text: &str| text.parse().expect("a name");
    let (cache, web, hello) = (name("cache"), name("web"), name("hello"));
    assert_eq!(first.containers[&cache], second.containers[&cache]);
    assert_ne!(first.containers[&web], second.containers[&web]);
    assert!(!first.containers.contains_key(&hello) && second.containers.contains_key(&hello));
    assert_eq!(first.header.name, second.header.name);
    assert!(first.header.serial < second.header.serial);
    assert_eq!((&first.networks, &first.volumes), (&second.networks, &second.volumes));
}
