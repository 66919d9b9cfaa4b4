//! The broker's URL, read with care, and errors of connecting put into words.
//!
//! Separate because nothing in here may ever print a password, and because the library's reading
//! of URLs differs from what people mean: it takes `amqp://host/` for a virtual host without a
//! name (nobody has one; `/` is meant) and an IPv6 address for `localhost`.

use lapin::ErrorKind;
use lapin::uri::AMQPUri;

use crate::address;
use crate::broker::BrokerError;

/// Seconds between heartbeats unless the URL says otherwise: a dead peer is noticed after about two
/// of them. So the answers that a frozen node holds are with another one before the half minute that
/// a step waits by default. RabbitMQ advises against less.
pub const HEARTBEAT_SECONDS: u16 = 5;

const DEFAULT_VHOST: &str = "/";
/// What the server says of a bad login, and of a virtual host that isn't there.
const ACCESS_REFUSED: u16 = 403;
const NOT_ALLOWED: u16 = 530;

/// Reads an `amqp://` or `amqps://` URL.
pub(super) fn parse(url: &str) -> Result<AMQPUri, BrokerError> {
    let bad = |why: &str| {
        BrokerError::Connect(format!(
            "the URL is not like amqp://user:password@host:5672/vhost ({why})"
        ))
    };
    // The library's own errors may quote the URL with its password.
    let scheme = url.split("://").next().unwrap_or_default();
    if !matches!(scheme, "amqp" | "amqps") || scheme.len() == url.len() {
        return Err(bad("it must start with amqp:// or amqps://"));
    }
    if let Some(why) = address::trouble(url) {
        return Err(bad(why));
    }
    let authority = url[scheme.len() + 3..].split('/').next();
    if authority.is_some_and(|authority| authority.contains('[')) {
        return Err(bad("use a host name instead of an IPv6 address"));
    }
    let mut uri: AMQPUri = url
        .parse()
        .map_err(|_| bad("is a part of it not percent-encoded?"))?;
    if uri.vhost.is_empty() {
        DEFAULT_VHOST.clone_into(&mut uri.vhost);
    }
    // The server's word is best, and a small frame would not hold our headers.
    uri.query.frame_max = None;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    Ok(uri)
}

/// Where it is, without the password.
pub(super) fn public(uri: &AMQPUri) -> String {
    let authority = &uri.authority;
    format!(
        "{}:{} as user `{}` on virtual host `{}`",
        authority.host, authority.port, authority.userinfo.username, uri.vhost
    )
}

/// The server's refusal of the login or the virtual host, if that is what the error is: trying
/// again would not help.
pub(super) fn refusal(uri: &AMQPUri, error: &lapin::Error) -> Option<String> {
    let place = public(uri);
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.get_id() {
            ACCESS_REFUSED => Some(format!(
                "{place}: the user or password is wrong, or the user has no rights there ({})",
                error.get_message()
            )),
            NOT_ALLOWED => Some(format!(
                "{place}: no such virtual host for this user; check the path of the URL, `/%2f` is the default one ({})",
                error.get_message()
            )),
            _ => None,
        },
        ErrorKind::InvalidProtocolVersion(_) | ErrorKind::AuthProviderError(_) => {
            Some(format!("{place}: {error}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_mean_what_people_mean_by_them() {
        for (url, host, port, vhost) in [
            ("amqp://h", "h", 5672, "/"),
            ("amqp://h/", "h", 5672, "/"),
            ("amqp://h/%2f", "h", 5672, "/"),
            ("amqp://u:p%40@127.0.0.1:1/v%2fw", "127.0.0.1", 1, "v/w"),
            ("amqps://h?frame_max=9", "h", 5671, "/"),
        ] {
            let uri = parse(url).unwrap();
            assert_eq!(uri.authority.host, host, "{url}");
            assert_eq!(uri.authority.port, port, "{url}");
            assert_eq!(uri.vhost, vhost, "{url}");
            assert_eq!(uri.query.frame_max, None, "{url}");
        }
        assert_eq!(
            parse("amqp://h?heartbeat=3").unwrap().query.heartbeat,
            Some(3)
        );
    }

    #[test]
    fn a_bad_url_is_an_error_that_does_not_quote_it() {
        for url in [
            "",
            "secret",
            "amqp",
            "amqp:secret",
            "http://u:secret@h",
            "amqp://u:secret@h:port",
            "amqp://u:secret@[::1]:5672",
            "amqp://u:secret%ff@h",
            "amqp://u:12#secret@h",
            "amqp://u:12?secret@h",
            "://secret",
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn the_public_form_has_no_password() {
        let uri = parse("amqp://user:secret@h/v").unwrap();
        assert_eq!(public(&uri), "h:5672 as user `user` on virtual host `v`");
    }
}
