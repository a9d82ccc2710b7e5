//! Native images: exported, served with and without range requests, spoiled, and pulled.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bennu_image_store::{Image, Origin, Refused, sha256};
use common::Tar;
use common::native::{Bench, Native, asked, noise, tars};
use common::registry::{Parts, Seen, Server};

#[tokio::test]
async fn a_native_image_has_the_blobs_of_the_image_that_it_was_made_of() {
    let (native, original) = Native::of(&tars(b"one")).await;
    let bench = Bench::new();
    let server = native.serve();
    let pulled = bench.pull(&server.image(native.digest)).await.expect("pulled");
    assert_eq!(pulled.config, original.config);
    let blobs = |image: &Image| image.layers.iter().map(|layer| (layer.blob, layer.size)).collect::<Vec<_>>();
    assert_eq!(blobs(&pulled), blobs(&original));
    assert!(pulled.layers.iter().all(|layer| layer.origin == Origin::Published));
    assert!(bench.store.verify().expect("looked at").is_empty());
    assert!(bench.store.scrub().expect("read").is_empty());
    assert_eq!(bench.temporary_files(), 0);
    // Nothing was here, so the layers came whole; the configuration is the third.
    assert_eq!(asked(&server), [None; 3]);
}

#[tokio::test]
async fn of_a_second_version_only_what_changed_is_fetched() {
    let ((first, _), (second, original)) = (Native::of(&tars(b"one")).await, Native::of(&tars(b"two")).await);
    let bench = Bench::new();
    bench.pull(&first.serve().image(first.digest)).await.expect("pulled");
    let server = second.serve();
    let pulled = bench.pull(&server.image(second.digest)).await.expect("pulled");
    assert_eq!(pulled.layers[0].blob, original.layers[0].blob);
    let ranges = asked(&server);
    let fetched: usize = ranges.iter().flatten().sum();
    // The table, the details of a few groups, and a few frames. The configuration is new and comes whole.
    assert_eq!(ranges.iter().filter(|range| range.is_none()).count(), 1, "{ranges:?}");
    assert!(fetched * 20 < second.layer_sizes()[0], "{fetched} of {:?}", second.layer_sizes());
    assert!(bench.store.scrub().expect("read").is_empty());
    assert_eq!(bench.temporary_files(), 0);
}

#[tokio::test]
async fn files_that_moved_within_a_layer_are_found_where_they_are_now() {
    let mut shifted = Tar::new().dir("usr/").file("usr/000", noise(1000, 10 * 4096));
    for i in 0..64 {
        shifted =
            shifted.file(&format!("usr/{i:02}"), if i == 40 { b"one".to_vec() } else { noise(i, 65_536) });
    }
    let second = Native::of(&[shifted.end(), tars(b"one")[1].clone()]).await.0;
    let (bench, parts) = (Bench::new(), Parts::new("amd64", &tars(b"one")));
    // What is here may have come as an ordinary image.
    bench.pull(&parts.clone().serve().image(parts.digest())).await.expect("pulled");
    let server = second.serve();
    bench.pull(&server.image(second.digest)).await.expect("pulled");
    let fetched: usize = asked(&server).iter().flatten().sum();
    assert!(fetched * 20 < second.layer_sizes()[0], "{fetched} of {:?}", second.layer_sizes());
    assert!(bench.store.scrub().expect("read").is_empty());
}

/// A layer of 300 small files and 40 larger ones, of sizes that leave tails; `change` has the content of each at will.
fn files(change: impl Fn(&str, Vec<u8>) -> Vec<Vec<u8>>) -> Vec<u8> {
    let mut tar = Tar::new().dir("usr/");
    for i in 0..340_u64 {
        let len = if i % 8 == 0 { 20_000 + i as usize * 13 } else { 100 + i as usize * 7 };
        let name = format!("usr/file-{i:03}");
        for (again, content) in change(&name, noise(i + 1, len)).into_iter().enumerate() {
            let name = if again == 0 { name.clone() } else { format!("{name}-{again}") };
            tar = tar.file(&name, content);
        }
    }
    tar.end()
}

/// Bytes of parts that a second version of a layer costs; nothing came whole but the configuration, and what came is what it should be.
async fn cost(one: Vec<u8>, two: Vec<u8>) -> usize {
    let ((first, _), (second, original)) = (Native::of(&[one]).await, Native::of(&[two]).await);
    let bench = Bench::new();
    bench.pull(&first.serve().image(first.digest)).await.expect("pulled");
    let server = second.serve();
    let pulled = bench.pull(&server.image(second.digest)).await.expect("pulled");
    assert_eq!(pulled.layers[0].blob, original.layers[0].blob);
    assert!(bench.store.scrub().expect("read").is_empty());
    let ranges = asked(&server);
    assert_eq!(ranges.iter().filter(|range| range.is_none()).count(), 1, "{ranges:?}");
    ranges.iter().flatten().sum()
}

#[tokio::test]
async fn a_file_that_grows_costs_what_it_has_more_and_little_besides() {
    let same = files(|_, content| vec![content]);
    let grown = files(|name, content| match name {
        "usr/file-016" => vec![[content, noise(9999, 10 * 4096)].concat()],
        _ => vec![content],
    });
    let fetched = cost(same, grown).await;
    // Ten blocks of noise, the rest of the frames that they are in, and some records; all other files have moved by ten blocks.
    assert!((10 * 4096..10 * 4096 + 40_000).contains(&fetched), "{fetched}");
}

#[tokio::test]
async fn a_file_that_comes_or_goes_costs_its_records_and_no_others() {
    let same = || files(|_, content| vec![content]);
    let more = files(|name, content| match name {
        "usr/file-101" => vec![content, noise(9999, 500)],
        _ => vec![content],
    });
    let less = files(|name, content| if name == "usr/file-101" { vec![] } else { vec![content] });
    for (what, changed) in [("one more", more), ("one less", less)] {
        let fetched = cost(same(), changed).await;
        assert!(fetched < 25_000, "{what}: {fetched}");
    }
}

#[tokio::test]
async fn each_part_that_lies_costs_a_second_request_and_nothing_else() {
    let same = files(|_, content| vec![content]);
    let grown = files(|name, content| match name {
        "usr/file-016" | "usr/file-160" => vec![[content, noise(9999, 5 * 4096)].concat()],
        _ => vec![content],
    });
    let ((first, _), (second, original)) = (Native::of(&[same]).await, Native::of(&[grown]).await);
    let host = || async {
        let bench = Bench::new();
        bench.pull(&first.serve().image(first.digest)).await.expect("pulled");
        bench
    };
    let honest = second.serve();
    host().await.pull(&honest.image(second.digest)).await.expect("pulled");
    let ranges = asked(&honest).iter().flatten().count();
    // The table, details, and frames of blocks and of records.
    assert!((4..40).contains(&ranges), "{ranges}");
    for lie in 0..ranges {
        let (bench, count) = (host().await, Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let server = second.serve_spoiled(move |_, body| {
            let middle = body.len() / 2;
            if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == lie {
                body[middle] ^= 0x10;
            }
        });
        let pulled = bench.pull(&server.image(second.digest)).await.expect("pulled");
        assert_eq!(pulled.layers[0].blob, original.layers[0].blob, "{lie}");
        assert!(bench.store.scrub().expect("read").is_empty(), "{lie}");
        assert_eq!(bench.temporary_files(), 0, "{lie}");
    }
}

#[tokio::test]
async fn a_server_without_ranges_gives_the_whole() {
    let ((first, _), (second, original)) = (Native::of(&tars(b"one")).await, Native::of(&tars(b"two")).await);
    let bench = Bench::new();
    bench.pull(&first.serve().image(first.digest)).await.expect("pulled");
    let native = second.clone();
    let server = Server::start(move |seen| {
        let without = Seen { headers: BTreeMap::new(), ..seen.clone() };
        native.answer(&without)
    });
    let pulled = bench.pull(&server.image(second.digest)).await.expect("pulled");
    assert_eq!(pulled.layers[0].blob, original.layers[0].blob);
    assert!(bench.store.scrub().expect("read").is_empty());
}

#[tokio::test]
async fn parts_that_lie_cost_a_second_request_and_nothing_else() {
    let ((first, _), (second, original)) = (Native::of(&tars(b"one")).await, Native::of(&tars(b"two")).await);
    let spoils: [fn(usize, &mut Vec<u8>); 5] = [
        |_, body| body.fill(0),
        |_, body| body.iter_mut().for_each(|byte| *byte = !*byte),
        |_, body| *body.last_mut().expect("not empty") ^= 1,
        |_, body| body[0] ^= 1,
        |first, body| {
            let middle = body.len() / 2;
            if first < 1000 { body[0] ^= 1 } else { body[middle] ^= 0x80 }
        },
    ];
    for (i, spoil) in spoils.into_iter().enumerate() {
        let bench = Bench::new();
        bench.pull(&first.serve().image(first.digest)).await.expect("pulled");
        let server = second.serve_spoiled(spoil);
        let pulled = bench.pull(&server.image(second.digest)).await.expect("pulled");
        assert_eq!(pulled.layers[0].blob, original.layers[0].blob, "{i}");
        assert!(asked(&server).iter().filter(|range| range.is_none()).count() >= 2, "{i}: fetched whole");
        assert!(bench.store.scrub().expect("read").is_empty(), "{i}");
        assert_eq!(bench.temporary_files(), 0, "{i}");
    }
}

#[tokio::test]
async fn t20_a_local_blob_that_rotted_spoils_no_delta() {
    let ((first, _), (second, original)) = (Native::of(&tars(b"one")).await, Native::of(&tars(b"two")).await);
    let bench = Bench::new();
    let here = bench.pull(&first.serve().image(first.digest)).await.expect("pulled");
    let path = bench.store.blob_path(&here.layers[0].blob);
    let Ok(file) = writable(&path) else { return }; // fs-verity guards it.
    file.write_all_at(b"rot", 500_000).expect("written");
    let pulled = bench.pull(&second.serve().image(second.digest)).await.expect("pulled");
    assert_eq!(pulled.layers[0].blob, original.layers[0].blob);
    let bad = bench.store.scrub().expect("read");
    assert_eq!(bad.iter().map(|bad| bad.blob).collect::<Vec<_>>(), [here.layers[0].blob]);
}

fn writable(path: &Path) -> std::io::Result<fs::File> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    fs::OpenOptions::new().write(true).open(path)
}

#[tokio::test]
async fn a_layer_that_makes_another_blob_than_it_says_is_refused() {
    let ((one, _), (two, _)) = (Native::of(&tars(b"one")).await, Native::of(&tars(b"two")).await);
    // The manifest of one, with the descriptor's blob taken from the other.
    let blob = |native: &Native| {
        let manifest: serde_json::Value =
            serde_json::from_slice(&native.blobs[&native.digest.hex()]).expect("JSON");
        manifest["layers"][0]["annotations"]["dev.bennu.blob"].as_str().expect("there").to_owned()
    };
    let text = String::from_utf8(one.blobs[&one.digest.hex()].clone()).expect("JSON");
    for (manifest, annotations) in [
        (text.replace(&blob(&one), &blob(&two)), true),
        (text.replace("dev.bennu.blob.size", "other"), false),
        (text.replace(&blob(&one), "sha256:../../x"), false),
    ] {
        let digest = sha256::digest(manifest.as_bytes());
        let mut blobs = (*one.blobs).clone();
        blobs.insert(digest.hex(), manifest.into_bytes());
        let spoiled = Native { blobs: Arc::new(blobs), digest };
        let bench = Bench::new();
        let refused = bench.refused(&spoiled.serve().image(digest)).await;
        match annotations {
            true => assert!(matches!(refused, Refused::Blob { .. }), "{refused:?}"),
            false => assert!(matches!(refused, Refused::Annotations { .. }), "{refused:?}"),
        }
        assert!(bench.store.images().expect("listed").is_empty());
        assert_eq!(bench.temporary_files(), 0);
    }
}

#[tokio::test]
async fn what_a_publisher_says_of_a_diff_id_counts_for_his_image_alone() {
    let evil = tars(b"evil");
    let honest = Parts::new("amd64", &tars(b"good"));
    let (native, _) = Native::of(&evil).await;
    // The evil blobs under the configuration of the honest image.
    let mut blobs = (*native.blobs).clone();
    let mut manifest: serde_json::Value = serde_json::from_slice(&blobs[&native.digest.hex()]).expect("JSON");
    let config = sha256::digest(&honest.config);
    manifest["config"]["digest"] = config.to_string().into();
    manifest["config"]["size"] = honest.config.len().into();
    let manifest = serde_json::to_vec(&manifest).expect("JSON");
    let digest = sha256::digest(&manifest);
    blobs.insert(config.hex(), honest.config.clone());
    blobs.insert(digest.hex(), manifest);
    let bench = Bench::new();
    let spoiled = Native { blobs: Arc::new(blobs), digest };
    let lie = bench.pull(&spoiled.serve().image(digest)).await.expect("it is his to say");
    let pulled = bench.pull(&honest.clone().serve().image(honest.digest())).await.expect("pulled");
    assert_eq!(pulled.layers[0].diff_id, lie.layers[0].diff_id);
    assert_ne!(pulled.layers[0].blob, lie.layers[0].blob);
    assert_eq!(pulled.layers[0].origin, Origin::Tar);
}

#[tokio::test]
async fn any_zstd_program_makes_the_blocks_of_files_out_of_a_native_layer() {
    let (native, original) = Native::of(&tars(b"one")).await;
    let bench = Bench::new();
    let pulled = bench.pull(&native.serve().image(native.digest)).await.expect("pulled");
    let blob = fs::read(bench.store.blob_path(&pulled.layers[0].blob)).expect("read");
    let largest = native.blobs.values().max_by_key(|bytes| bytes.len()).expect("there");
    let mut content = Vec::new();
    zstd::stream::read::Decoder::new(largest.as_slice())
        .and_then(|mut decoder| decoder.read_to_end(&mut content))
        .expect("sound");
    // The superblock and 63 files of 16 blocks; behind them the records, the smallest file in one of them.
    let data = (1 + 63 * 16) * 4096;
    assert!(content.len() > data && blob.starts_with(&content[..data]));
    assert!(content[data..].windows(3).any(|bytes| bytes == b"one"));
    assert_eq!(original.layers[0].size, blob.len() as u64);
}
