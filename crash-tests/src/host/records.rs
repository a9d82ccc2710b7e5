//! The records of a store, looked at without opening a blob: a kernel without fs-verity opens none that has it.
//!
//! Format: `docs/store-format.md`.

use std::fs;
use std::io;
use std::path::Path;

use bennu_manifests::model::Digest;
use serde_json::Value;

/// Whether the image of this digest is in the store at `root`, with each of its layers in full length.
///
/// # Errors
/// Where something can't be read.
pub fn has_image(root: &Path, image: &Digest) -> io::Result<bool> {
    match fs::read(root.join("images/sha256").join(image.hex())) {
        Ok(record) => is_whole(root, &record),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The records of images and layers that can't be read, or speak of a blob that is not there in full length.
///
/// # Errors
/// Where something can't be read.
pub fn broken(root: &Path) -> io::Result<Vec<String>> {
    let mut broken = Vec::new();
    for directory in ["images/sha256", "layers/sha256"] {
        for item in fs::read_dir(root.join(directory))? {
            let path = item?.path();
            if !is_whole(root, &fs::read(&path)?)? {
                broken.push(path.display().to_string());
            }
        }
    }
    Ok(broken)
}

fn is_whole(root: &Path, record: &[u8]) -> io::Result<bool> {
    let Ok(record) = serde_json::from_slice::<Value>(record) else { return Ok(false) };
    let layers = record["layers"].as_array().map_or_else(|| vec![&record], |layers| layers.iter().collect());
    for layer in layers {
        let blob = layer["blob"].as_str().and_then(|blob| blob.parse::<Digest>().ok());
        let (Some(blob), Some(size)) = (blob, layer["size"].as_u64()) else { return Ok(false) };
        match fs::metadata(root.join("blobs/sha256").join(blob.hex())) {
            Ok(metadata) if metadata.len() == size => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_whose_blob_is_short_or_missing_is_broken() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        for directory in ["images/sha256", "layers/sha256", "blobs/sha256"] {
            fs::create_dir_all(root.join(directory)).expect("made");
        }
        let (image, blob) = (Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32]));
        assert!(!has_image(root, &image).expect("read"));
        let record = format!(r#"{{"layers":[{{"diff-id":"{image}","blob":"{blob}","size":3}}]}}"#);
        fs::write(root.join("images/sha256").join(image.hex()), record).expect("written");
        assert_eq!(broken(root).expect("read").len(), 1, "there is no blob");
        let path = root.join("blobs/sha256").join(blob.hex());
        fs::write(&path, "12").expect("written");
        assert_eq!(broken(root).expect("read").len(), 1, "it is short");
        fs::write(&path, "123").expect("written");
        assert_eq!(broken(root).expect("read"), Vec::<String>::new());
        assert!(has_image(root, &image).expect("read"));
    }
}
