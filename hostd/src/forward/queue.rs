//! Lines that wait for a receiver: bounded in bytes, the oldest go first.

use std::collections::VecDeque;

use crate::host::Entry;

/// What a line costs beside its text, in bytes.
const OVERHEAD: usize = 512;

/// Lines in the order in which they were written.
#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    limit: usize,
}

impl Queue {
    /// One that holds so many bytes, but at least one line.
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, limit }
    }

    /// Whether there is room.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < self.limit
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the newest line. Returns how many of the oldest went for it.
    pub(super) fn push(&mut self, entry: Entry) -> u64 {
        // Where there is room nothing goes: one line more than the bound is less than a line that is lost.
        let gone = if self.has_room() { 0 } else { self.shrink(cost(&entry)) };
        self.bytes += cost(&entry);
        self.entries.push_back(entry);
        gone
    }

    /// Takes the oldest lines: so many, and no more bytes than that, but at least one.
    pub(super) fn take(&mut self, lines: usize, bytes: usize) -> Vec<Entry> {
        let (mut taken, mut size) = (Vec::new(), 0);
        while let Some(entry) = self.entries.front() {
            let cost = cost(entry);
            if taken.len() == lines || (size + cost > bytes && !taken.is_empty()) {
                break;
            }
            size += cost;
            self.bytes -= cost;
            taken.extend(self.entries.pop_front());
        }
        taken
    }

    /// Puts lines back that were taken and not delivered. Returns how many of the oldest went because meanwhile others
    /// took their place.
    pub(super) fn put_back(&mut self, taken: Vec<Entry>) -> u64 {
        for entry in taken.into_iter().rev() {
            self.bytes += cost(&entry);
            self.entries.push_front(entry);
        }
        self.shrink(0)
    }

    /// Drops the oldest lines until what is to come has room; at least one line may stay or come.
    fn shrink(&mut self, coming: usize) -> u64 {
        let mut gone = 0;
        while self.bytes + coming > self.limit && self.entries.len() > usize::from(coming == 0) {
            if let Some(oldest) = self.entries.pop_front() {
                self.bytes -= cost(&oldest);
                gone += 1;
            }
        }
        gone
    }
}

fn cost(entry: &Entry) -> usize {
    // The fields of a line of JSON are in memory beside its text.
    let text = entry.line.message.len();
    OVERHEAD + if entry.line.fields.is_empty() { text } else { 4 * text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::tests::line;

    fn entry(number: usize) -> Entry {
        Entry { cursor: number.to_string(), line: line(&"x".repeat(488)) }
    }

    fn fill(queue: &mut Queue, numbers: std::ops::Range<usize>) -> u64 {
        numbers.map(|number| queue.push(entry(number))).sum()
    }

    fn cursors(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.cursor.as_str()).collect()
    }

    #[test]
    fn the_oldest_go_first_and_are_counted() {
        let mut queue = Queue::new(3000);
        let gone = fill(&mut queue, 0..10);
        assert_eq!((gone, queue.bytes()), (7, 3000));
        assert!(!queue.has_room());
        assert_eq!(cursors(&queue.take(100, usize::MAX)), ["7", "8", "9"]);
        assert!(queue.is_empty() && queue.has_room() && queue.bytes() == 0);
    }

    #[test]
    fn what_was_not_delivered_comes_again_before_what_is_newer() {
        let mut queue = Queue::new(10_000);
        fill(&mut queue, 0..5);
        let taken = queue.take(2, usize::MAX);
        queue.push(entry(5));
        assert_eq!(queue.put_back(taken), 0);
        assert_eq!(cursors(&queue.take(100, usize::MAX)), ["0", "1", "2", "3", "4", "5"]);
    }

    #[test]
    fn what_was_not_delivered_goes_where_there_is_no_room_any_more() {
        let mut queue = Queue::new(3000);
        fill(&mut queue, 0..3);
        let taken = queue.take(2, usize::MAX);
        fill(&mut queue, 3..5);
        assert_eq!(queue.put_back(taken), 2);
        assert_eq!(cursors(&queue.take(100, usize::MAX)), ["2", "3", "4"]);
    }

    #[test]
    fn a_batch_is_bounded_and_never_empty() {
        let mut queue = Queue::new(1 << 20);
        fill(&mut queue, 0..5);
        assert_eq!(queue.take(100, 2500).len(), 2);
        assert_eq!(queue.take(100, 1).len(), 1, "one that is larger than a batch goes alone");
        assert_eq!(queue.take(1, usize::MAX).len(), 1);
    }
}
