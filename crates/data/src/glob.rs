//! Matches the path patterns of dataset cards: `*`, `?`, `[a-z0]`, `[!x]` inside a path component, `**` across them.
//!
//! Works on names only and refuses nothing: a `[` that is never closed stands for itself. Costs pattern × path steps,
//! never more, whatever the pattern.

enum Token {
    Literal(char),
    AnyChar,
    Class { negated: bool, ranges: Vec<(char, char)> },
    Star,
    Everything,
    Folders,
}

/// Whether the whole `path` (with `/` between components) is matched by `pattern`.
pub fn matches(pattern: &str, path: &str) -> bool {
    let path: Vec<char> = path.chars().collect();
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    for token in tokens(pattern) {
        reached = advance(&token, &reached, &path);
    }
    reached[path.len()]
}

// `reached[i]`: the pattern up to here can end before character i.
fn advance(token: &Token, reached: &[bool], path: &[char]) -> Vec<bool> {
    let mut next = vec![false; reached.len()];
    let mut open = false;
    for at in 0..reached.len() {
        let before = at.checked_sub(1).map(|at| path[at]);
        let from_before = at > 0 && reached[at - 1];
        next[at] = match token {
            Token::Literal(wanted) => from_before && before == Some(*wanted),
            Token::AnyChar => from_before && before != Some('/'),
            Token::Class { negated, ranges } => {
                from_before
                    && before.is_some_and(|c| {
                        c != '/'
                            && ranges.iter().any(|(low, high)| (*low..=*high).contains(&c))
                                != *negated
                    })
            }
            Token::Star => reached[at] || at > 0 && next[at - 1] && before != Some('/'),
            Token::Everything => reached[at] || at > 0 && next[at - 1],
            // `**/`: nothing, or any number of whole folders.
            Token::Folders => reached[at] || open && before == Some('/'),
        };
        open |= reached[at];
    }
    next
}

fn tokens(pattern: &str) -> Vec<Token> {
    let chars: Vec<char> = pattern.chars().collect();
    let (mut all, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let rest = &chars[at..];
        let (token, used) = match rest {
            ['*', '*', '/', ..] => (Token::Folders, 3),
            ['*', '*', ..] => (Token::Everything, 2),
            ['*', ..] => (Token::Star, 1),
            ['?', ..] => (Token::AnyChar, 1),
            ['[', ..] => class(rest).unwrap_or((Token::Literal('['), 1)),
            [c, ..] => (Token::Literal(*c), 1),
            [] => break,
        };
        all.push(token);
        at += used;
    }
    all
}

// A `]` directly after `[` or `[!` belongs to the class.
fn class(rest: &[char]) -> Option<(Token, usize)> {
    let negated = matches!(rest.get(1), Some('!' | '^'));
    let start = 1 + usize::from(negated);
    let end = start + 1 + rest.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let (mut ranges, mut inside) = (Vec::new(), &rest[start..end]);
    while let Some((low, after)) = inside.split_first() {
        match after {
            ['-', high, after @ ..] => {
                ranges.push((*low, *high));
                inside = after;
            }
            _ => {
                ranges.push((*low, *low));
                inside = after;
            }
        }
    }
    Some((Token::Class { negated, ranges }, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, path: &str, expected: bool| {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        };
        check("data/train-*", "data/train-00000-of-00001.parquet", true);
        check("data/train-*", "data/train-x/y.parquet", false);
        check("data/train-*", "data/validation-00000.parquet", false);
        check("train.parquet", "train.parquet", true);
        check("train.parquet", "trainxparquet", false);
        check("**/train.csv", "train.csv", true);
        check("**/train.csv", "a/b/train.csv", true);
        check("**/train.csv", "a/b/xtrain.csv", false);
        check("**", "a/b", true);
        check("a/**", "a/b/c", true);
        check("a/**/c", "a/c", true);
        check("a/**/c", "a/b/d/c", true);
        check("a/**/c", "ac", false);
        check("?.csv", "a.csv", true);
        check("?.csv", "/.csv", false);
        check("[a-c][!0-9].csv", "bx.csv", true);
        check("[a-c][!0-9].csv", "b7.csv", false);
        check("[a-c]x", "dx", false);
        check("[]]x", "]x", true);
        check("[-a]x", "-x", true);
        check("[abc", "[abc", true);
        check("a[^b]c", "a/c", false);
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("[0-9][0-9]-of-*.*", "00-of-1.x.y", true);
    }

    #[test]
    fn many_stars_stay_cheap() {
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199)));
    }

    proptest! {
        #[test]
        fn never_panics(pattern in ".*", path in ".*") {
            matches(&pattern, &path);
        }

        #[test]
        fn agrees_with_a_plain_recursion(pattern in "[ab*?/]{0,8}", path in "[ab/]{0,8}") {
            fn slow(pattern: &[u8], path: &[u8]) -> bool {
                match pattern {
                    [] => path.is_empty(),
                    [b'*', b'*', b'/', rest @ ..] => {
                        slow(rest, path)
                            || (0..path.len()).any(|at| path[at] == b'/' && slow(rest, &path[at + 1..]))
                    }
                    [b'*', b'*', rest @ ..] => (0..=path.len()).any(|at| slow(rest, &path[at..])),
                    [b'*', rest @ ..] => (0..=path.len())
                        .take_while(|at| *at == 0 || path[at - 1] != b'/')
                        .any(|at| slow(rest, &path[at..])),
                    [b'?', rest @ ..] => path.first().is_some_and(|c| *c != b'/') && slow(rest, &path[1..]),
                    [c, rest @ ..] => path.first() == Some(c) && slow(rest, &path[1..]),
                }
            }
            prop_assert_eq!(matches(&pattern, &path), slow(pattern.as_bytes(), path.as_bytes()));
        }
    }
}
