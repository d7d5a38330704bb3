//! Words in sentences: the nearest spelling, a list of names, the start of a user's text.

use std::cmp::Reverse;

/// The candidate that a person most likely meant, if any is near enough to be worth saying. Of those
/// that are equally near, the one that begins alike.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let length = word.chars().count();
    // Nobody mistypes a name of this length, and to compare would cost its length many times over.
    if length > EXCERPT {
        return None;
    }
    let limit = 1 + length / 4;
    let alike = |candidate: &str| {
        let pairs = word.chars().zip(candidate.chars());
        Reverse(pairs.take_while(|(one, other)| one == other).count())
    };
    // Words are at least as far apart as their lengths. Said first, since the distance costs the product
    // of the lengths, and a word of a pod may have megabytes.
    let lower = candidates.into_iter().map(|candidate| (candidate.to_lowercase(), candidate));
    let as_long = lower.filter(|(lower, _)| lower.chars().count().abs_diff(length) <= limit);
    let ranked = as_long
        .map(|(lower, candidate)| (strsim::osa_distance(&word, &lower), alike(&lower), candidate));
    let near = ranked.filter(|(distance, ..)| *distance <= limit);
    near.min().map(|(_, _, candidate)| candidate)
}

/// The most of a user's text that a sentence repeats, in characters.
const EXCERPT: usize = 64;
/// The most names that a sentence lists.
const MOST: usize = 12;

/// `a`, `b` or `c`: names in backquotes, for a sentence. Of many, the first ones.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let first = names.by_ref().take(MOST + 1);
    let mut shown: Vec<String> = first.map(|name| format!("`{name}`")).collect();
    // `or 1 more` would be as long as the name.
    let others = names.count();
    if others > 0 {
        shown.truncate(MOST);
        shown.push(format!("{} more", others + 1));
    }
    match shown.as_slice() {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [init @ .., last] => format!("{} or {last}", init.join(", ")),
    }
}

/// The start of a user's text, for a sentence. No more of the text is looked at: it may be as long as a
/// request, and be said of thousands of things.
pub fn excerpt(text: &str) -> String {
    let mut rest = text.chars();
    let start = rest.by_ref().take(EXCERPT);
    let mut excerpt: String =
        start.map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
    if rest.next().is_some() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_only_what_is_near() {
        let modes = ["mount", "userns", "rootless"];
        assert_eq!(nearest("moutn", modes), Some("mount"));
        assert_eq!(nearest("MOUNT", modes), Some("mount"));
        assert_eq!(nearest("gpu", modes), None);
        assert_eq!(nearest("", modes), None);
    }

    #[test]
    fn takes_the_one_that_begins_alike() {
        assert_eq!(nearest("h10", ["a10", "h100", "t4"]), Some("h100"));
    }

    #[test]
    fn lists_read_as_a_sentence() {
        assert_eq!(list([]), "none");
        assert_eq!(list(["a"]), "`a`");
        assert_eq!(list(["a", "b", "c"]), "`a`, `b` or `c`");
        assert!(list(["x"; 20]).ends_with("`x` or 8 more"));
    }

    #[test]
    fn excerpts_are_short_and_plain() {
        assert_eq!(excerpt("a\nb"), "a\u{fffd}b");
        assert_eq!(excerpt(&"x".repeat(100)).chars().count(), EXCERPT + 1);
    }
}
