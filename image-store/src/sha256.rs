//! SHA-256, in the one file that knows which crate computes it.
//!
//! `ring` is used because its assembly is several times faster than portable code on processors without SHA
//! instructions, and a pull computes three such digests over every byte. Two of the three are trees of digests that know nothing of
//! each other; those are computed two at a time where the processor can (`sha256/lanes.rs`).

#[cfg(target_arch = "x86_64")]
mod lanes;

use std::io::{self, Read};

use bennu_manifests::model::Digest;

/// A digest being computed.
#[derive(Clone)]
pub struct Sha256(ring::digest::Context);

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256")
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    /// The digest of nothing so far.
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        to_digest(self.0.finish())
    }
}

/// The digest of `bytes`.
pub fn digest(bytes: &[u8]) -> Digest {
    to_digest(ring::digest::digest(&ring::digest::SHA256, bytes))
}

/// The digests of two texts of the same length. It must be a multiple of 64 bytes.
pub fn pair<const LEN: usize>(texts: [&[u8; LEN]; 2]) -> [Digest; 2] {
    #[cfg(target_arch = "x86_64")]
    if let Some(digests) = lanes::pair(texts) {
        return digests.map(Digest::from_bytes);
    }
    texts.map(|text| digest(text))
}

fn to_digest(digest: ring::digest::Digest) -> Digest {
    Digest::from_bytes(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// Passes bytes through and computes their digest and number.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hash: Sha256,
    count: u64,
}

impl<R: Read> HashingReader<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), count: 0 }
    }

    /// The digest of all bytes that were read, and how many they were.
    pub fn finish(self) -> (Digest, u64) {
        (self.hash.finish(), self.count)
    }

    /// Bytes read so far.
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<const LEN: usize>() {
        let text = |by: usize| std::array::from_fn::<u8, LEN, _>(|i| (i * by + i / 64) as u8);
        let (left, right) = (text(7), text(31));
        let alone = [digest(&left), digest(&right)];
        assert_ne!(alone[0], alone[1]);
        assert_eq!(pair([&left, &right]), alone, "{LEN} bytes");
        assert_eq!(pair([&right, &left]), [alone[1], alone[0]], "{LEN} bytes");
    }

    #[test]
    fn two_digests_at_once_are_those_of_each_alone() {
        check::<64>();
        check::<128>();
        check::<4096>();
    }
}
