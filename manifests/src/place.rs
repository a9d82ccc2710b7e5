//! Where in the text of a document something stands.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The places of a parsed document, for faults that are found when it has been read.
pub(crate) struct Places<'a>(&'a DeTable<'a>);

impl<'a> Places<'a> {
    pub(crate) fn of(tree: &'a Spanned<DeTable<'a>>) -> Self {
        Self(tree.get_ref())
    }

    /// Where the value at `path` stands; for a table, its name. What is not there is shown by what it would be in.
    pub(crate) fn value(&self, path: &[&str]) -> Range<usize> {
        self.find(path).1
    }

    /// Where, in the array or table at `path`, the first string or key is that `is_it` takes.
    pub(crate) fn element(&self, path: &[&str], is_it: impl Fn(&str) -> bool) -> Range<usize> {
        self.elements(path, is_it).0
    }

    /// As [`Places::element`], the last.
    pub(crate) fn last_element(&self, path: &[&str], is_it: impl Fn(&str) -> bool) -> Range<usize> {
        self.elements(path, is_it).1
    }

    /// The first and the last.
    fn elements(&self, path: &[&str], is_it: impl Fn(&str) -> bool) -> (Range<usize>, Range<usize>) {
        let (value, place) = self.find(path);
        let in_array = |element: &&Spanned<DeValue<'a>>| text_of(element.get_ref()).is_some_and(&is_it);
        let found: Vec<Range<usize>> = match value {
            Some(DeValue::Array(array)) => array.iter().filter(in_array).map(Spanned::span).collect(),
            Some(DeValue::Table(table)) => {
                table.keys().filter(|key| is_it(key.get_ref())).map(Spanned::span).collect()
            }
            _ => Vec::new(),
        };
        let first = found.first().unwrap_or(&place).clone();
        (first, found.last().unwrap_or(&place).clone())
    }

    /// The keys of the table at `key`, as they are written.
    pub(crate) fn keys(&self, key: &str) -> Vec<&'a str> {
        match self.find(&[key]).0 {
            Some(DeValue::Table(table)) => table.keys().map(|key| key.get_ref().as_ref()).collect(),
            _ => Vec::new(),
        }
    }

    fn find(&self, path: &[&str]) -> (Option<&'a DeValue<'a>>, Range<usize>) {
        let (mut table, mut place) = (Some(self.0), 0..0);
        let mut value = None;
        for key in path {
            let Some((key, found)) = table.and_then(|table| table.get_key_value(*key)) else {
                return (None, place);
            };
            let inner = found.get_ref();
            // The span of a table is that of its header at best, and of nothing that a person wrote at worst.
            place = if inner.is_table() { key.span() } else { found.span() };
            (table, value) = (inner.as_table(), Some(inner));
        }
        (value, place)
    }
}

/// The string that an element of an array is, or that is the name in the table that it is.
fn text_of<'a>(element: &'a DeValue<'a>) -> Option<&'a str> {
    let named = |table: &'a DeTable<'a>| {
        ["secret", "config"].iter().find_map(|key| table.get(*key)?.get_ref().as_str())
    };
    element.as_str().or_else(|| named(element.as_table()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_text() {
        let text = "[a.b]\nlist = [\"x\", \"y\"]\nc = { d = 1 }\n";
        let tree = crate::document::parse(text).expect("TOML");
        let places = Places::of(&tree);
        assert_eq!(&text[places.value(&["a", "b"])], "b");
        assert_eq!(&text[places.value(&["a", "b", "c", "d"])], "1");
        assert_eq!(&text[places.value(&["a", "b", "none"])], "b");
        assert_eq!(&text[places.element(&["a", "b", "list"], |text| text == "y")], "\"y\"");
        assert_eq!(&text[places.element(&["a", "b", "c"], |text| text == "d")], "d");
        assert_eq!(&text[places.element(&["a", "b", "list"], |_| false)], "[\"x\", \"y\"]");
        assert_eq!(places.keys("a"), ["b"]);
    }
}
