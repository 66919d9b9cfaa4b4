//! Where an answer may be sent: any queue, and RabbitMQ's direct reply-to.
//!
//! A client that asks without a queue of its own names `amq.rabbitmq.reply-to`, which the server
//! turns into a name that holds the client's channel. An answer to it reaches the client, if it is
//! still there, and nobody else: no queue takes it, so it must not be published as mandatory.
//! Some servers break the whole connection of whoever publishes to such a name that they can't
//! read, so a name that can't be one is refused where it comes in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Destination;

/// How the names of direct replies begin.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";
/// The first byte of an Erlang term.
const TERM: u8 = 131;

impl Destination {
    /// Whether it is a client that waits for a direct reply, rather than a queue.
    pub fn is_direct_reply(&self) -> bool {
        self.exchange.is_empty() && self.routing_key.starts_with(DIRECT_REPLY)
    }
}

/// Says what is wrong with the name of a queue that somebody wants answers in, if anything is.
///
/// # Errors
/// The reason, with what to do.
pub fn check_reply_to(name: &str) -> Result<(), String> {
    let Some(rest) = name.strip_prefix(DIRECT_REPLY) else {
        return Ok(());
    };
    let parts: Vec<&str> = rest.split('.').collect();
    let is_readable = match parts[..] {
        ["", channel, key] => {
            let channel = STANDARD.decode(channel);
            channel.is_ok_and(|bytes| bytes.first() == Some(&TERM) && bytes.len() > 1)
                && STANDARD.decode(key).is_ok_and(|bytes| !bytes.is_empty())
        }
        _ => false,
    };
    if is_readable {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    Err(format!(
        "`reply_to` is `{}`, which is not a name that RabbitMQ gives to a direct reply; publish with `reply_to: {DIRECT_REPLY}` on a channel that consumes from it, or name a queue",
        shown.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_and_true_direct_replies_are_addresses_and_rubbish_is_not() {
        let long = format!("{DIRECT_REPLY}.{}", "A".repeat(200));
        for (name, is_right) in [
            ("answers", true),
            ("amq.gen-JzTY20BRgKO", true),
            (
                "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA1NzUwODY2NAAAC1EAAAAAYvJ7Eg==.3cKxAcJhT2OsHx4XWFJT2w==",
                true,
            ),
            ("amq.rabbitmq.reply-to", false),
            ("amq.rabbitmq.reply-to.", false),
            ("amq.rabbitmq.reply-to.rubbish", false),
            ("amq.rabbitmq.reply-to.rubbish.more", false),
            ("amq.rabbitmq.reply-to.!!.??", false),
            ("amq.rabbitmq.reply-to..", false),
            ("amq.rabbitmq.reply-to.g1h2AA5y.", false),
            (&long, false),
        ] {
            assert_eq!(check_reply_to(name).is_ok(), is_right, "{name}");
        }
    }
}
