//! What an operating system is made of, in words that other programs read: SPDX 2.3 as JSON
//! (<https://spdx.github.io/spdx-spec/v2.3/>).
//!
//! Two sources say it: the package database of the root, before it is taken away, and Cargo, of the crates that end up in our own
//! programs. **Invariant:** the same inputs give the same bytes; the document knows no time and no machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use bennu_image_store::sha256;
use serde_json::{Value, json};

use crate::BuildError;
use crate::base::Base;
use crate::command::{at, run};

/// Where it lies in the root.
pub(crate) const PATH: &str = "usr/share/bennu/sbom.spdx.json";
/// Our own programs, as Cargo calls their packages.
const PROGRAMS: [&str; 3] = ["hostd", "hostctl", "bennu-init"];
/// The time of the files of the root ([`crate::base::EPOCH`]), since a document has to name one.
const CREATED: &str = "2025-01-01T00:00:00Z";

/// Something that a part of the operating system was made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    /// An SPDX licence expression, where the source says one.
    license: Option<String>,
    /// A package URL (<https://github.com/package-url/purl-spec>), where the package can be had from others.
    locator: Option<String>,
}

/// The document of an operating system of this version.
pub(crate) fn document(base: &Base, version: &str) -> Result<String, BuildError> {
    let path = base.packages();
    let listed = fs::read_to_string(&path).map_err(at("read", &path))?;
    let mut packages = distribution(&listed)?;
    packages.extend(crates(&metadata()?)?);
    Ok(written(version, &packages.into_iter().collect()))
}

/// What decides which crates there are, for keys of what is made.
pub(crate) fn lock() -> Result<Vec<u8>, BuildError> {
    let path = workspace().join("Cargo.lock");
    fs::read(&path).map_err(at("read", &path))
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Packages of Debian from lines of name, version, architecture, name and version of the source, separated by tabs.
fn distribution(listed: &str) -> Result<Vec<Package>, BuildError> {
    let package = |line: &str| {
        let [name, version, arch, source, source_version] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(BuildError::Incomplete { what: format!("package in the line {line:?}") });
        };
        let upstream = encoded(&format!("{source}@{source_version}"));
        let locator =
            format!("pkg:deb/debian/{}@{}?arch={arch}&upstream={upstream}", encoded(name), encoded(version));
        Ok(Package { name: name.into(), version: version.into(), license: None, locator: Some(locator) })
    };
    listed.lines().map(package).collect()
}

fn metadata() -> Result<Value, BuildError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace()).args(["metadata", "--format-version=1", "--locked"]);
    command.arg("--filter-platform=x86_64-unknown-linux-gnu");
    serde_json::from_str(&run(&mut command)?).map_err(|_| unknown("JSON from `cargo metadata`"))
}

/// The crates whose code is in our programs: what they depend on, and not what only their tests or builds do.
fn crates(metadata: &Value) -> Result<Vec<Package>, BuildError> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let needs: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let dependencies = list(&node["deps"]).into_iter().filter(|dependency| {
                list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null())
            });
            (text(&node["id"]), dependencies.map(|dependency| text(&dependency["pkg"])).collect())
        })
        .collect();
    let ours = |(_, package): &(&String, &Value)| {
        package["source"].is_null() && PROGRAMS.contains(&package["name"].as_str().unwrap_or_default())
    };
    let mut ahead: Vec<String> = packages.iter().filter(ours).map(|(id, _)| id.clone()).collect();
    if ahead.len() != PROGRAMS.len() {
        return Err(unknown("our own programs in what `cargo metadata` says"));
    }
    let mut found = BTreeSet::new();
    while let Some(id) = ahead.pop() {
        if found.insert(id.clone()) {
            ahead.extend(needs.get(&id).into_iter().flatten().cloned());
        }
    }
    let package = |id: &String| {
        let package = packages.get(id).ok_or_else(|| unknown("a crate that another one needs"))?;
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        // Cargo took "/" for "OR" before it took expressions of SPDX.
        let license = package["license"].as_str().map(|license| license.replace('/', " OR "));
        let locator =
            package["source"].as_str().map(|_| format!("pkg:cargo/{}@{}", encoded(&name), encoded(&version)));
        Ok(Package { name, version, license, locator })
    };
    found.iter().map(package).collect()
}

fn unknown(what: &str) -> BuildError {
    BuildError::Incomplete { what: what.to_owned() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn written(version: &str, packages: &BTreeSet<Package>) -> String {
    const OS: &str = "SPDXRef-OperatingSystem";
    let id = |number: usize| format!("SPDXRef-Package-{number}");
    let mut described = vec![json!({
        "SPDXID": OS, "name": "bennu", "versionInfo": version, "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false, "primaryPackagePurpose": "OPERATING-SYSTEM",
    })];
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": OS,
    })];
    for (number, package) in packages.iter().enumerate() {
        let mut one = json!({
            "SPDXID": id(number), "name": package.name, "versionInfo": package.version,
            "downloadLocation": "NOASSERTION", "filesAnalyzed": false, "copyrightText": "NOASSERTION",
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": package.license.as_deref().unwrap_or("NOASSERTION"),
        });
        if let Some(locator) = &package.locator {
            one["externalRefs"] = json!([{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator,
            }]);
        }
        described.push(one);
        relationships.push(json!({
            "spdxElementId": OS, "relationshipType": "CONTAINS", "relatedSpdxElement": id(number),
        }));
    }
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("bennu-{version}"),
        "creationInfo": { "created": CREATED, "creators": ["Tool: bennu-os-image"] },
        "packages": described,
        "relationships": relationships,
    });
    // A document has a name of its own in the world, and the same document always the same one.
    document["documentNamespace"] = json!(format!("urn:uuid:{}", uuid(document.to_string().as_bytes())));
    serde_json::to_string_pretty(&document).expect("it is JSON") + "\n"
}

/// A UUID made of a digest (RFC 9562, section 5.8).
fn uuid(bytes: &[u8]) -> String {
    let digest = sha256::digest(bytes);
    let mut first: [u8; 16] = digest.as_bytes()[..16].try_into().expect("a digest is longer");
    first[6] = first[6] & 0x0f | 0x80;
    first[8] = first[8] & 0x3f | 0x80;
    let hex: String = first.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// As a part of a package URL: what is neither a letter, a digit nor one of `.-_~` is percent-encoded.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_so_that_others_find_them() {
        let found = distribution("libc6\t2.41-12+b1\tamd64\tglibc\t2.41-12\n").expect("one line");
        let locator = "pkg:deb/debian/libc6@2.41-12%2Bb1?arch=amd64&upstream=glibc%402.41-12";
        assert_eq!(found[0].locator.as_deref(), Some(locator));
        assert!(distribution("libc6 2.41\n").is_err(), "not what dpkg was asked for");
    }

    #[test]
    fn what_is_in_our_programs_is_listed_and_what_only_their_tests_need_is_not() {
        let found = crates(&metadata().expect("cargo")).expect("our programs");
        let has = |name: &str| found.iter().any(|package| package.name == name);
        assert!(has("hostd") && has("tokio") && has("bennu-planner"));
        assert!(!has("insta") && !has("proptest") && !has("xtask"));
        let tokio = found.iter().find(|package| package.name == "tokio").expect("found above");
        assert_eq!(tokio.license.as_deref(), Some("MIT"));
        assert_eq!(tokio.locator, Some(format!("pkg:cargo/tokio@{}", tokio.version)));
    }

    #[test]
    fn a_document_is_the_same_for_the_same_packages_and_contains_them_all() {
        let packages: BTreeSet<_> =
            distribution("b\t1\tamd64\tb\t1\na\t2\tall\ta\t2\n").expect("two lines").into_iter().collect();
        let document = written("1.2.3", &packages);
        assert_eq!(document, written("1.2.3", &packages));
        assert_ne!(document, written("1.2.4", &packages));
        let parsed: Value = serde_json::from_str(&document).expect("it is JSON");
        let contains = |number: usize| {
            json!({
                "spdxElementId": "SPDXRef-OperatingSystem", "relationshipType": "CONTAINS",
                "relatedSpdxElement": format!("SPDXRef-Package-{number}"),
            })
        };
        let related = parsed["relationships"].as_array().expect("a list");
        assert_eq!(related[1..], [contains(0), contains(1)]);
        let names: Vec<_> =
            parsed["packages"].as_array().expect("a list").iter().map(|p| &p["name"]).collect();
        assert_eq!(names, ["bennu", "a", "b"]);
        let namespace = parsed["documentNamespace"].as_str().expect("a text");
        assert_eq!(namespace.len(), "urn:uuid:".len() + 36);
        assert_eq!(&namespace["urn:uuid:".len() + 14..][..1], "8", "a version 8 UUID: {namespace}");
    }
}
