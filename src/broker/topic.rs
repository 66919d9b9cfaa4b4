//! Matching routing keys against the patterns of a topic exchange.
//!
//! A key is words joined by dots; in a pattern `*` stands for one word and `#` for any number,
//! none included. Separate so that it is tested on its own; pure.

/// Whether `key` matches `pattern`.
pub(crate) fn matches(pattern: &str, key: &str) -> bool {
    let pattern: Vec<&str> = words(pattern).collect();
    let key: Vec<&str> = words(key).collect();
    let (mut at_pattern, mut at_key) = (0, 0);
    // Where to resume when the words after the last `#` don't fit: it then swallows one more.
    let mut resume: Option<(usize, usize)> = None;
    while at_key < key.len() {
        match pattern.get(at_pattern) {
            Some(&"#") => {
                at_pattern += 1;
                resume = Some((at_pattern, at_key));
            }
            Some(&word) if word == "*" || word == key[at_key] => {
                at_pattern += 1;
                at_key += 1;
            }
            _ => match resume {
                Some((after_hash, swallowed)) => {
                    at_pattern = after_hash;
                    at_key = swallowed + 1;
                    resume = Some((after_hash, at_key));
                }
                None => return false,
            },
        }
    }
    pattern[at_pattern..].iter().all(|word| *word == "#")
}

/// The words of a key; an empty key has none.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('.').filter(move |_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_is_one_word_and_a_hash_is_any_number_of_words() {
        for (pattern, key, expected) in [
            ("order.completed", "order.completed", true),
            ("order.completed", "order.compensated", false),
            ("order.*", "order.completed", true),
            ("order.*", "order", false),
            ("order.*", "order.completed.late", false),
            ("*", "", false),
            ("*.*", "a.b", true),
            ("#", "", true),
            ("#", "a.b.c", true),
            ("order.#", "order", true),
            ("order.#", "order.a.b", true),
            ("order.#", "orders.a", false),
            ("#.completed", "completed", true),
            ("#.completed", "a.b.completed", true),
            ("#.completed", "a.completed.b", false),
            ("a.#.b.#.c", "a.b.c", true),
            ("a.#.b.#.c", "a.x.b.y.b.z.c", true),
            ("a.#.b.#.c", "a.x.c", false),
            ("#.*", "a", true),
            ("#.*", "", false),
            ("#.#", "a.b", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} on {key}");
        }
    }
}
