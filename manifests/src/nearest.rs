//! "Did you mean …": the nearest of a few known words.

/// The longest word that is compared, in bytes; it bounds the work on hostile input.
const MAX_WORD: usize = 64;

/// The candidate that is at most a third of its letters away from `word`, and the nearest such.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > MAX_WORD {
        return None;
    }
    let distance = |candidate: &'a str| (distance(word, candidate), candidate);
    let close = |(away, candidate): &(usize, &str)| *away <= candidate.len().div_ceil(3).min(3);
    let candidates = candidates.into_iter().filter(|candidate| candidate.len() <= MAX_WORD);
    candidates.map(distance).filter(close).min().map(|(_, candidate)| candidate)
}

/// `did you mean "x"?` for the nearest of `candidates`, where one is near enough to be a slip of the pen.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|near| format!("did you mean `{near}`?"))
}

/// How many letters are to be added, removed, replaced or swapped with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (row, letter) in a.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in b.iter().enumerate() {
            let replaced = above[column] + usize::from(letter != *other);
            let mut least = replaced.min(above[column + 1] + 1).min(current[column] + 1);
            if column > 0 && previous == Some(*other) && letter == b[column - 1] {
                least = least.min(before[column - 1] + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut above, current);
        previous = Some(letter);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_single_edits_and_swaps() {
        for (a, b, expect) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("image", "image", 0),
            ("imgae", "image", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expect, "{a} {b}");
        }
    }

    #[test]
    fn only_near_words_are_offered() {
        let words = ["image", "ports", "networks", "volumes"];
        assert_eq!(nearest("imagee", words), Some("image"));
        assert_eq!(nearest("prots", words), Some("ports"));
        assert_eq!(nearest("network", words), Some("networks"));
        assert_eq!(nearest("entrypoint", words), None);
        assert_eq!(nearest("a", ["b"]), Some("b"));
        assert_eq!(nearest(&"i".repeat(1000), words), None);
    }
}
