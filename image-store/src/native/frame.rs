//! Frames: small, so that little comes along with what is wanted, and each with what stands before it as its prefix, so that it costs little
//! more than a part of a large one. Whoever puts a layer together has what stands before: it is here, or has just come.

use std::io::{self, BufRead, Read};

use zstd::stream::read::Decoder;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, get_error_name};

use super::layout::MAX_FRAME;

/// Bytes of the prefix, fewer at the beginning.
pub(super) const PREFIX: usize = 64 << 10;
/// The window that a frame may ask for, as a power of two: its content.
const MAX_WINDOW_LOG: u32 = MAX_FRAME.ilog2();

/// The end of what came before.
#[derive(Debug, Default)]
pub(super) struct Before(Vec<u8>);

impl Before {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0[self.0.len().saturating_sub(PREFIX)..]
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(PREFIX)..];
        if self.0.len() + bytes.len() > 4 * PREFIX {
            self.0.drain(..self.0.len().saturating_sub(PREFIX));
        }
        self.0.extend_from_slice(bytes);
    }
}

fn failed(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

/// A frame with this content.
pub(super) fn compress(before: &Before, content: &[u8], level: i32) -> io::Result<Vec<u8>> {
    // A prefix is borrowed for as long as there is a context.
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(level)).map_err(failed)?;
    context.ref_prefix(before.bytes()).map_err(failed)?;
    let mut frame = Vec::with_capacity(zstd::zstd_safe::compress_bound(content.len()));
    context.compress2(&mut frame, content).map_err(failed)?;
    Ok(frame)
}

/// Fills `content` with that of a frame; `None` where it has another length.
pub(super) fn decompress(before: &Before, frame: &[u8], content: &mut [u8]) -> Option<()> {
    let mut context = DCtx::create();
    context.ref_prefix(before.bytes()).ok()?;
    let n = context.decompress(content, frame).ok()?;
    (n == content.len()).then_some(())
}

/// The content of the next frame of a layer, whose length is not known; empty for one that is to be skipped.
pub(super) fn next(before: &Before, layer: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut decoder = Decoder::with_ref_prefix(layer, before.bytes())?.single_frame();
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    let mut content = Vec::new();
    decoder.take(MAX_FRAME as u64 + 1).read_to_end(&mut content)?;
    if content.len() > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame with more content than frames have"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_one_by_one_or_in_a_row_and_need_what_stands_before() {
        let contents: Vec<Vec<u8>> = (0..20_u32)
            .map(|i| (0..10_000).flat_map(|n: u32| (n % 3000 * (i % 2 + 7)).to_le_bytes()).collect())
            .collect();
        let mut before = Before::default();
        let mut frames = Vec::new();
        for content in &contents {
            frames.push(compress(&before, content, 3).expect("compressed"));
            before.add(content);
        }
        assert!(
            frames[2].len() * 20 < frames[0].len(),
            "it repeats what is {} bytes before",
            2 * contents[0].len()
        );
        let (row, mut before) = (frames.concat(), Before::default());
        let mut row = row.as_slice();
        for (content, frame) in contents.iter().zip(&frames) {
            let mut one = vec![0; content.len()];
            decompress(&before, frame, &mut one).expect("sound");
            assert!(one == *content && next(&before, &mut row).expect("sound") == *content);
            assert_eq!(decompress(&before, frame, &mut vec![0; content.len() - 1]), None);
            assert_eq!(decompress(&before, frame, &mut vec![0; content.len() + 1]), None);
            before.add(content);
            assert!(before.bytes().len() <= PREFIX && before.0.len() <= 4 * PREFIX);
        }
        let mut alone = vec![0; contents[2].len()];
        assert!(decompress(&Before::default(), &frames[2], &mut alone).is_none() || alone != contents[2]);
    }

    #[test]
    fn a_frame_that_would_fill_memory_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; MAX_FRAME + 1], 3).expect("compressed");
        assert!(next(&Before::default(), &mut bomb.as_slice()).is_err());
        let sound = zstd::bulk::compress(&vec![0; MAX_FRAME], 3).expect("compressed");
        assert_eq!(next(&Before::default(), &mut sound.as_slice()).expect("sound").len(), MAX_FRAME);
    }
}
