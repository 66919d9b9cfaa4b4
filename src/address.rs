//! Addresses of servers (`postgres://…`, `amqp://…`): read with care before they are used, and
//! shown without what they hide.
//!
//! Separate because a password must not come out of any door: an error, a log line, a label. What
//! people write by hand is often not the URL they mean: a `#` or `?` in a password ends the address
//! there, and what follows is taken for something else, which nobody would think of hiding. So an
//! address that can be read in two ways is refused, and nothing of it is shown.

/// Stands for an address that must not be shown.
const HIDDEN: &str = "(unreadable URL)";

/// Why a URL can't be meant as it is written; `None` if it can be used.
pub fn trouble(url: &str) -> Option<&'static str> {
    let Some((_, rest)) = url.split_once("://") else {
        return Some("it has no `://`");
    };
    let (authority, tail) = split(rest);
    if rest.contains('#') {
        return Some("a `#` must be written as %23");
    }
    if tail.contains('@') {
        return Some(
            "a `/`, `?` or `@` in a user's name, a password or a parameter must be written as %2F, %3F or %40",
        );
    }
    if rest.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Some("spaces and control characters must be percent-encoded");
    }
    // `user:pass?word@host` is caught above; `user:12?x` would connect to a host named `user`.
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    match port {
        Some(port) if !authority.contains('@') && !is_port(port) => {
            Some("what follows the `:` is no port")
        }
        _ => None,
    }
}

/// A URL without what must not be printed: the password, and the query, which may hold one.
/// Of one that can't be read without doubt, nothing.
pub fn shown(url: &str) -> String {
    if trouble(url).is_some() {
        return HIDDEN.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return HIDDEN.to_owned();
    };
    let (authority, tail) = split(rest);
    let path = tail.split('?').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}{path}")
        }
        None => format!("{scheme}://{authority}{path}"),
    }
}

/// The authority, and what follows it.
fn split(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()))
}

/// Also the end of an IPv6 address in brackets, which is somebody else's business.
fn is_port(text: &str) -> bool {
    text.ends_with(']') || text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_their_secrets() {
        for (url, expected) in [
            ("postgres://h/d", "postgres://h/d"),
            ("postgres://h:5432/d", "postgres://h:5432/d"),
            ("postgres://[::1]/d", "postgres://[::1]/d"),
            ("postgres://u:secret@h:5/d", "postgres://u:***@h:5/d"),
            ("postgres://u:se@cret@h/d", "postgres://u:***@h/d"),
            ("postgres://u@h/d?password=secret", "postgres://u:***@h/d"),
            ("amqp://u:secret@h/%2f", "amqp://u:***@h/%2f"),
            ("amqp://u:secret%23@h/%2f", "amqp://u:***@h/%2f"),
        ] {
            assert_eq!(trouble(url), None, "{url}");
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn of_what_can_be_read_in_two_ways_nothing_is_shown() {
        for url in [
            "host=h password=secret",
            "secret",
            "",
            "postgres://u:se#cret@h/d",
            "postgres://u:se?cret@h/d",
            "postgres://u:se/cret@h/d",
            "postgres://u:1234#secret@h/d",
            "postgres://u:1234?secret@h/d",
            "postgres://u:secret#",
            "postgres://h/d?password=secret@5",
            "postgres://u:secret",
            "amqp://u:se cret@h",
            "amqp://u:12#secret@h/%2f",
        ] {
            assert!(trouble(url).is_some(), "{url}");
            assert_eq!(shown(url), HIDDEN, "{url}");
        }
    }
}
