//! Which of several images is meant.

use std::fmt;

use bennu_manifests::model::Digest;

use super::Listed;
use crate::registry::document::shown;

/// The most images that an error lists.
const MAX_SHOWN: usize = 16;

/// Why no image was chosen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// There is none.
    #[error("it has no images")]
    Empty,
    /// It was not said which.
    #[error("it has several images, name one of them:{0}")]
    Several(List),
    /// The name fits more than one.
    #[error("'{wanted}' fits several images:{list}")]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// Those that fit.
        list: List,
    },
    /// None of them is meant.
    #[error("it has no image '{wanted}', but:{list}")]
    NotFound {
        /// What was asked for.
        wanted: String,
        /// All there are.
        list: List,
    },
}

/// Images, a line for each of at most 16.
#[derive(Debug, Clone)]
pub struct List {
    lines: Vec<String>,
    more: usize,
}

impl List {
    fn of(images: &[&Listed]) -> Self {
        let line = |image: &&Listed| {
            let names: String = image.names.iter().take(4).map(|name| format!(" {}", shown(name))).collect();
            format!("{}{names}", image.digest)
        };
        let lines = images.iter().take(MAX_SHOWN).map(line).collect();
        Self { lines, more: images.len().saturating_sub(MAX_SHOWN) }
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        if self.more > 0 {
            write!(f, "\n  and {} more", self.more)?;
        }
        Ok(())
    }
}

/// The image that is meant; see [`super::Files::choose`].
pub(super) fn choose<'a>(images: Vec<&'a Listed>, wanted: Option<&str>) -> Result<&'a Listed, ChooseError> {
    let fitting = match wanted {
        None => images.clone(),
        Some(wanted) => fitting(&images, wanted),
    };
    match (fitting.first(), wanted) {
        (Some(first), _) if fitting.iter().all(|image| image.digest == first.digest) => Ok(first),
        (None, None) => Err(ChooseError::Empty),
        (Some(_), None) => Err(ChooseError::Several(List::of(&images))),
        (Some(_), Some(wanted)) => {
            Err(ChooseError::Ambiguous { wanted: shown(wanted), list: List::of(&fitting) })
        }
        (None, Some(wanted)) => Err(ChooseError::NotFound { wanted: shown(wanted), list: List::of(&images) }),
    }
}

fn fitting<'a>(images: &[&'a Listed], wanted: &str) -> Vec<&'a Listed> {
    let of = |fits: &dyn Fn(&Listed) -> bool| {
        images.iter().copied().filter(|image| fits(image)).collect::<Vec<_>>()
    };
    let digest = wanted.rsplit_once('@').map_or(wanted, |(_, digest)| digest);
    if let Ok(digest) = digest.parse::<Digest>() {
        return of(&|image| image.digest == digest);
    }
    let named = |wanted: &str| {
        let whole = of(&|image| image.names.iter().any(|name| name == wanted));
        if whole.is_empty() {
            let end = format!("/{wanted}");
            return of(&|image| image.names.iter().any(|name| name.ends_with(&end)));
        }
        whole
    };
    let found = named(wanted);
    let tagged = wanted.rsplit('/').next().is_some_and(|name| name.contains(':'));
    if found.is_empty() && !tagged { named(&format!("{wanted}:latest")) } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(byte: u8, names: &[&str]) -> Listed {
        Listed {
            digest: Digest::from_bytes([byte; 32]),
            size: 1,
            media_type: String::new(),
            artifact_type: None,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn chosen(images: &[Listed], wanted: Option<&str>) -> Result<u8, String> {
        choose(images.iter().collect(), wanted)
            .map(|image| image.digest.as_bytes()[0])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_only_image_needs_no_name_and_several_do() {
        assert_eq!(chosen(&[listed(1, &[])], None), Ok(1));
        assert_eq!(chosen(&[listed(1, &["a"]), listed(1, &["b"])], None), Ok(1), "one image, two names");
        let several = chosen(&[listed(1, &["a:1"]), listed(2, &["b:1"])], None).expect_err("which?");
        assert!(several.contains("a:1") && several.contains("b:1"), "{several}");
        assert_eq!(chosen(&[], None), Err("it has no images".to_owned()));
    }

    #[test]
    fn a_name_is_the_whole_or_follows_a_slash_and_means_latest_without_a_tag() {
        let images = [
            listed(1, &["docker.io/library/app:latest", "latest"]),
            listed(2, &["docker.io/library/app:2", "2"]),
            listed(3, &["docker.io/other/app:2"]),
            listed(4, &["plain"]),
        ];
        assert_eq!(chosen(&images, Some("app")), Ok(1));
        assert_eq!(chosen(&images, Some("library/app:2")), Ok(2));
        assert_eq!(chosen(&images, Some("2")), Ok(2));
        assert_eq!(chosen(&images, Some("plain")), Ok(4));
        assert!(chosen(&images, Some("app:2")).expect_err("two").contains("fits several"));
        let none = chosen(&images, Some("pp:2")).expect_err("not a whole name");
        assert!(none.contains("plain"), "what there is is listed: {none}");
        let by_digest = format!("whatever@{}", images[2].digest);
        assert_eq!(chosen(&images, Some(&by_digest)), Ok(3));
        assert_eq!(chosen(&images, Some(&images[2].digest.to_string())), Ok(3));
        let other = Digest::from_bytes([9; 32]).to_string();
        assert!(chosen(&images, Some(&format!("plain@{other}"))).is_err(), "the digest is what counts");
    }

    #[test]
    fn a_name_from_a_stranger_cannot_move_the_cursor() {
        let several = chosen(&[listed(1, &["a\u{1b}[2J"]), listed(2, &[])], None).expect_err("which?");
        assert!(!several.contains('\u{1b}'), "{several}");
    }
}
