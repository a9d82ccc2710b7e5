//! Two digests of equal length at once, on processors with the SHA instructions of x86 (Intel SDM, volume 1, "SHA Extensions").
//!
//! One SHA-256 (FIPS 180-4) is a chain: each round waits for the one before it, and the processor is idle for half of the time.
//! Two that know nothing of each other fill that gap, so both take little longer than one. Merkle trees have such pairs; `ring` gives one
//! digest at a time.

#![expect(
    unsafe_code,
    reason = "functions for processors with these instructions are called, once it is known that this is one"
)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};

/// Bytes that are taken at a time (FIPS 180-4, section 5.2.1).
const CHUNK: usize = 64;

/// Section 4.2.2.
const ROUND_CONSTANTS: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// Section 5.3.3, `a` to `h`.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The digests of two texts of the same length, which is a multiple of 64 bytes; `None` where this processor has no instructions for
/// it.
pub(super) fn pair<const LEN: usize>(texts: [&[u8; LEN]; 2]) -> Option<[[u8; 32]; 2]> {
    const { assert!(LEN.is_multiple_of(CHUNK), "what is padded behind the text is a chunk of its own") };
    let can = is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1");
    // SAFETY: the processor has all that the function is compiled for.
    can.then(|| unsafe { digests(texts) })
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn digests<const LEN: usize>([left, right]: [&[u8; LEN]; 2]) -> [[u8; 32]; 2] {
    let mut lanes = [Lane::new(), Lane::new()];
    for (left, right) in left.as_chunks().0.iter().zip(right.as_chunks().0) {
        add(&mut lanes, [left, right]);
    }
    let last = padding(LEN);
    add(&mut lanes, [&last, &last]);
    lanes.map(|lane| lane.digest())
}

/// What stands behind a text of so many bytes, which are whole chunks (section 5.1.1).
fn padding(len: usize) -> [u8; CHUNK] {
    let mut last = [0; CHUNK];
    last[0] = 0x80;
    last[CHUNK - 8..].copy_from_slice(&(len as u64 * 8).to_be_bytes());
    last
}

/// The state of one digest, as the instructions want it.
#[derive(Clone, Copy)]
struct Lane {
    abef: __m128i,
    cdgh: __m128i,
}

impl Lane {
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn new() -> Self {
        let [a, b, c, d, e, f, g, h] = INITIAL.map(u32::cast_signed);
        Self { abef: _mm_set_epi32(a, b, e, f), cdgh: _mm_set_epi32(c, d, g, h) }
    }

    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn digest(&self) -> [u8; 32] {
        let Self { abef, cdgh } = *self;
        let words = [
            _mm_extract_epi32::<3>(abef),
            _mm_extract_epi32::<2>(abef),
            _mm_extract_epi32::<3>(cdgh),
            _mm_extract_epi32::<2>(cdgh),
            _mm_extract_epi32::<1>(abef),
            _mm_extract_epi32::<0>(abef),
            _mm_extract_epi32::<1>(cdgh),
            _mm_extract_epi32::<0>(cdgh),
        ];
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_be_bytes();
        }
        digest
    }
}

/// Adds one chunk to each (section 6.2.2).
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn add(lanes: &mut [Lane; 2], chunks: [&[u8; CHUNK]; 2]) {
    let before = *lanes;
    // The last 16 words of the schedule, by the place of four in them, for both.
    let mut words = load(chunks);
    let (constants, _) = ROUND_CONSTANTS.as_chunks::<4>();
    let (first, rest) = constants.split_at(4);
    four_rounds(lanes, words[0], &first[0]);
    four_rounds(lanes, words[1], &first[1]);
    four_rounds(lanes, words[2], &first[2]);
    four_rounds(lanes, words[3], &first[3]);
    // By hand: what is found by an index that is not known in advance is kept in memory and not in a register.
    for constants in rest.as_chunks::<4>().0 {
        words[0] = next(words[0], words[1], words[2], words[3]);
        four_rounds(lanes, words[0], &constants[0]);
        words[1] = next(words[1], words[2], words[3], words[0]);
        four_rounds(lanes, words[1], &constants[1]);
        words[2] = next(words[2], words[3], words[0], words[1]);
        four_rounds(lanes, words[2], &constants[2]);
        words[3] = next(words[3], words[0], words[1], words[2]);
        four_rounds(lanes, words[3], &constants[3]);
    }
    for (lane, before) in lanes.iter_mut().zip(before) {
        lane.abef = _mm_add_epi32(lane.abef, before.abef);
        lane.cdgh = _mm_add_epi32(lane.cdgh, before.cdgh);
    }
}

/// Four rounds of each, in turn.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn four_rounds([left, right]: &mut [Lane; 2], words: [__m128i; 2], constants: &[u32; 4]) {
    let [a, b, c, d] = constants.map(u32::cast_signed);
    let constants = _mm_set_epi32(d, c, b, a);
    let [of_left, of_right] = [_mm_add_epi32(words[0], constants), _mm_add_epi32(words[1], constants)];
    // Each instruction is two rounds, and gives what becomes `abef`; the old one becomes `cdgh`.
    left.cdgh = _mm_sha256rnds2_epu32(left.cdgh, left.abef, of_left);
    right.cdgh = _mm_sha256rnds2_epu32(right.cdgh, right.abef, of_right);
    left.abef = _mm_sha256rnds2_epu32(left.abef, left.cdgh, _mm_shuffle_epi32::<0b1110>(of_left));
    right.abef = _mm_sha256rnds2_epu32(right.abef, right.cdgh, _mm_shuffle_epi32::<0b1110>(of_right));
}

/// The 16 words of each chunk, which are big endian, by four.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn load([left, right]: [&[u8; CHUNK]; 2]) -> [[__m128i; 2]; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let four = |chunk: &[u8; CHUNK], i: usize| {
        let (halves, _) = chunk.as_chunks::<8>();
        let (low, high) = (i64::from_le_bytes(halves[2 * i]), i64::from_le_bytes(halves[2 * i + 1]));
        _mm_shuffle_epi8(_mm_set_epi64x(high, low), swap)
    };
    let both = |i: usize| [four(left, i), four(right, i)];
    [both(0), both(1), both(2), both(3)]
}

/// The next four words of each schedule, of those 16, 12, 8 and 4 before them.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn next(
    before_16: [__m128i; 2],
    before_12: [__m128i; 2],
    before_8: [__m128i; 2],
    before_4: [__m128i; 2],
) -> [__m128i; 2] {
    let one = |i: usize| {
        let before_7 = _mm_alignr_epi8::<4>(before_4[i], before_8[i]);
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(before_16[i], before_12[i]), before_7);
        _mm_sha256msg2_epu32(sum, before_4[i])
    };
    [one(0), one(1)]
}
