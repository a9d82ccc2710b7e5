use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::*;
use crate::erofs::{Attributes, BLOCK, Image, InodeKind, Sink, Tree, Writer};
use crate::leaves::Extent;

/// An image in memory that is being made, of at most so many bytes.
struct Grown {
    bytes: Vec<u8>,
    most: usize,
}

impl Sink for Grown {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > self.most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
    }

    fn written(&self) -> u64 {
        self.bytes.len() as u64
    }
}

fn attributes(seconds: i64, xattr: usize) -> Attributes {
    let xattrs = if xattr == 0 {
        BTreeMap::new()
    } else {
        BTreeMap::from([(b"user.one".to_vec(), vec![7; xattr]), (b"security.two".to_vec(), b"x".to_vec())])
    };
    Attributes { mode: 0o4751, uid: 1000, gid: 70_000, mtime: (seconds, 5), xattrs }
}

/// All kinds of inodes; `grown` is the size of one file. Gives the file and the bytes of the image.
fn image(grown: usize) -> (File, Vec<u8>) {
    let file = tempfile::tempfile().expect("a file");
    let mut writer =
        Writer::new(file.try_clone().expect("a descriptor"), &std::env::temp_dir()).expect("begun");
    let mut tree = Tree::new(10_000, 1 << 20);
    tree.set_attributes(Tree::ROOT, &attributes(-5, 20)).expect("room");
    let mut add = |tree: &mut Tree, directory, name: &str, size: usize, attributes: &Attributes| {
        let content = vec![size as u8; size];
        let mut left = content.as_slice();
        let data = writer.write_file(size as u64, attributes, |buffer| io::Read::read(&mut left, buffer));
        let kind = InodeKind::File(data.expect("written"));
        tree.add(directory, name.as_bytes(), kind, attributes).expect("room")
    };
    let usr = tree.add(Tree::ROOT, b"usr", InodeKind::Directory, &attributes(1, 0)).expect("room");
    for (i, size) in [0, 1, grown, 4096, 4095, 8193, 12_288, 100].into_iter().enumerate() {
        add(&mut tree, usr, &format!("f{i}"), size, &attributes(i as i64, if i % 3 == 0 { 100 } else { 0 }));
    }
    // Too many attributes for anything to lie behind them, and more than a block of them.
    add(&mut tree, usr, "heavy", 4000, &attributes(9, 3000));
    let twice = add(&mut tree, Tree::ROOT, "zz", 5000, &attributes(9, 5000));
    tree.link(usr, b"again", twice).expect("room");
    tree.link(Tree::ROOT, b"a", twice).expect("room");
    let many = tree.add(Tree::ROOT, b"many", InodeKind::Directory, &attributes(2, 0)).expect("room");
    for i in 0..400 {
        tree.add(many, format!("a-rather-long-name-{i}").as_bytes(), InodeKind::Fifo, &attributes(i, 0))
            .expect("room");
    }
    for (name, kind) in [
        ("null", InodeKind::CharDevice(1, 3)),
        ("disk", InodeKind::BlockDevice(259, 70_000)),
        ("gone", InodeKind::CharDevice(0, 0)),
        ("short", InodeKind::Symlink(b"usr/f1".as_slice().into())),
        ("long", InodeKind::Symlink(vec![b'x'; 4090].into())),
        ("empty", InodeKind::Directory),
    ] {
        tree.add(Tree::ROOT, name.as_bytes(), kind, &attributes(3, 0)).expect("room");
    }
    let (file, written) = writer.finish(&tree).expect("written");
    let mut bytes = vec![0; Extent::of_blob(written.size).expect("a blob").image_bytes() as usize];
    file.read_exact_at(&mut bytes, 0).expect("read");
    (file, bytes)
}

fn records(file: File) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    read(&Image::open(file).expect("an image"), |record| {
        records.push(record.to_vec());
        Ok(())
    })
    .expect("read");
    records
}

fn build(records: &[u8], piece: usize, out: &mut Grown) -> Result<(), BuildError> {
    let mut build = Build::new(&std::env::temp_dir());
    records.chunks(piece).try_for_each(|piece| build.push(piece))?;
    build.finish(out)
}

/// Where the data of the files ends: what they make together.
const DATA: fn(usize) -> usize =
    |grown| 1 + grown / BLOCK + usize::from(grown % BLOCK > 4032) + 1 + 1 + 2 + 3 + 1 + 2;

#[test]
fn records_make_the_rest_of_an_image_again_byte_for_byte() {
    for grown in [1, 4096, 10_000] {
        let (file, image) = image(grown);
        let records = records(file).concat();
        for piece in [1, 7, 4096, 1 << 20] {
            let begin = image[..DATA(grown) * BLOCK].to_vec();
            let mut out = Grown { bytes: begin, most: image.len() };
            build(&records, piece, &mut out).expect("built");
            assert!(
                out.bytes == image,
                "{grown} in pieces of {piece}: {} of {}",
                out.bytes.len(),
                image.len()
            );
        }
        assert!(records.len() < image.len() - DATA(grown) * BLOCK, "they are no larger than what they make");
    }
}

#[test]
fn a_file_that_grows_changes_no_records_but_its_own_and_that_of_a_file_out_of_order() {
    let (one, two) = (records(image(5000).0), records(image(500_000).0));
    assert_eq!(one.len(), two.len());
    let changed = one.iter().zip(&two).filter(|(one, two)| one != two);
    let names: Vec<&[u8]> = changed.map(|(one, _)| &one[2..2 + usize::from(one[1])]).collect();
    // `a` is the last file of the archive, and the first by path.
    assert_eq!(names, [&b"a"[..], b"f2"]);
}

#[test]
fn records_that_break_off_or_go_on_or_make_no_sense_are_refused() {
    let records = records(image(5000).0).concat();
    let mut nothing = Grown { bytes: Vec::new(), most: 1 << 30 };
    for len in (0..records.len()).step_by(61) {
        assert!(matches!(build(&records[..len], 4096, &mut nothing), Err(BuildError::Damaged)), "{len}");
    }
    let root = [&[DIRECTORY, 0][..], &[0; 24]].concat();
    let below = |more: &[u8]| [&root[..], more, &[END]].concat();
    let further = |back: u32| [&[FURTHER_NAME, 1, b'x'][..], &back.to_le_bytes()].concat();
    for (what, bad) in [
        ("something behind the end", [&records[..], &[END]].concat()),
        ("an end without a beginning", vec![END]),
        ("an unknown kind", below(&[FURTHER_NAME + 1])),
        ("a root that is a pipe", [&[FIFO, 0][..], &[0; 24]].concat()),
        ("a further name of a directory", below(&further(1))),
        ("a further name of nothing", below(&further(2))),
        ("a further name of what is to come", below(&further(0))),
    ] {
        assert!(matches!(build(&bad, 4096, &mut nothing), Err(BuildError::Damaged)), "{what}");
    }
    build(&below(&[]), 1, &mut nothing).expect("an empty root is sound");
}

#[test]
fn more_names_than_are_allowed_are_refused_before_they_take_memory() {
    let mut build = Build::new(&std::env::temp_dir());
    build.push(&[&[DIRECTORY, 0][..], &[0; 24]].concat()).expect("a root");
    let pipe = [&[FIFO, 1, b'x'][..], &[0; 24]].concat();
    let some = pipe.repeat(1 << 10);
    let refused = (0..MAX_NAMES >> 9).position(|_| build.push(&some).is_err());
    assert_eq!(refused, Some((MAX_NAMES >> 10) as usize - 1), "the root is a name as well");
}

#[test]
fn an_image_whose_directories_name_one_another_is_left_alone() {
    let (file, image) = image(5000);
    let image_of = Image::open(file.try_clone().expect("a descriptor")).expect("an image");
    let root = image_of.root().expect("the root");
    let entries = image_of.entries(&root).expect("entries");
    let many = &entries.iter().find(|(name, _)| name == b"many").expect("there").1;
    // Each entry of the root that leads to `usr` or `empty` now leads to `many`, and one of `many` to the root.
    let at = |wanted: u64| {
        let wanted = wanted.to_le_bytes();
        (0..image.len() - 8).find(|at| image[*at..].starts_with(&wanted) && image[at + 10] == 2)
    };
    let usr = entries.iter().find(|(name, _)| name == b"usr").expect("there").1;
    file.write_all_at(&many.to_le_bytes(), at(usr).expect("an entry") as u64).expect("written");
    let mut count = 0;
    // It ends, whatever it says.
    let _either = read(&image_of, |_| {
        count += 1;
        Ok(())
    });
    assert!(count < 10_000);
}
