//! Whether a patch costs fewer bytes than what is fetched without one. Nothing here acts.

/// A patch that could be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Its bytes.
    pub(crate) bytes: u64,
    /// The memory that it needs, in bytes.
    pub(crate) memory: u64,
}

/// Bytes that have to be at stake for patches to be looked for: about what the look costs.
const WORTH_A_LOOK: u64 = 64 << 10;

/// Whether to look for patches where a blob costs so many bytes without them.
pub(crate) fn worth_a_look(otherwise: u64) -> bool {
    otherwise > WORTH_A_LOOK
}

/// The number of the patch that costs fewest bytes; `None` where the frames that are missing, or the whole layer, cost no more: they take
/// less work. `memory` is what there is of it, in bytes: a patch takes at most half.
pub(crate) fn cheapest_patch(otherwise: u64, patches: &[Offer], memory: u64) -> Option<usize> {
    let fitting = patches.iter().enumerate().filter(|(_, patch)| patch.memory <= memory / 2);
    let (number, least) = fitting.min_by_key(|(_, patch)| patch.bytes)?;
    (least.bytes < otherwise).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: u64 = 1 << 40;

    fn offer(bytes: u64) -> Offer {
        Offer { bytes, memory: 1 << 20 }
    }

    #[test]
    fn a_patch_is_chosen_where_it_costs_fewer_bytes_than_every_other_way() {
        assert_eq!(cheapest_patch(40, &[offer(60), offer(39), offer(38)], PLENTY), Some(2));
        assert_eq!(cheapest_patch(40, &[offer(40)], PLENTY), None, "the same bytes");
        assert_eq!(cheapest_patch(40, &[offer(60)], PLENTY), None);
        assert_eq!(cheapest_patch(40, &[], PLENTY), None);
    }

    #[test]
    fn a_patch_that_needs_more_than_half_of_the_memory_is_passed_over() {
        let (small, large) = (Offer { bytes: 30, memory: 10 }, Offer { bytes: 20, memory: 50 });
        assert_eq!(cheapest_patch(40, &[small, large], 100), Some(1));
        assert_eq!(cheapest_patch(40, &[small, large], 99), Some(0));
        assert_eq!(cheapest_patch(40, &[small, large], 19), None);
    }

    #[test]
    fn nobody_looks_for_patches_where_little_is_at_stake() {
        assert!(!worth_a_look(WORTH_A_LOOK) && worth_a_look(WORTH_A_LOOK + 1));
    }
}
