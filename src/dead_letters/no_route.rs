//! The reasons for which a message is sent nowhere, in words that say what to do instead.

/// Why there is no way for a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Nobody knows where it belongs.
    #[error("nobody says which queue it died in; name one with `--to`")]
    Unknown,
    /// It would go to Backstitch itself, where it did not come from.
    #[error(
        "BST-0058: `{0}` is Backstitch's own; only what died there goes back there, or else anybody who may replay could speak for participants"
    )]
    Ours(String),
    /// It says where it died, and nobody can know.
    #[error(
        "BST-0058: it was imported, and so is what it says of where it died; name a queue with `--to` (over HTTP: `to`, one that the node allows)"
    )]
    Imported,
    /// Backstitch listens there, and would take it for an event.
    #[error(
        "BST-0058: sagas wait for events of exchange `{0}`, so that it would go to Backstitch too, where it did not die; name a queue with `--to`"
    )]
    Listened(String),
    /// The node does not let replays go there.
    #[error(
        "BST-0058: this node was not started with `--allow-replay-to {0}`; name a queue that is allowed, or replay it with the command line"
    )]
    NotAllowed(String),
    /// It would lie in a queue that nobody empties.
    #[error(
        "it expired in queue `{0}`, of which nobody consumes: if that is a delay queue, it would lie there; name the queue where it belongs with `--to`, or send it all the same with `--anyway`"
    )]
    Unattended(String),
    /// What is refused there again has no place to go.
    #[error(
        "BST-0056: what `{queue}` refuses again would be lost: it dead-letters to exchange `{exchange}`, which does not exist; declare that, or send it all the same with `--anyway`"
    )]
    NoExchange {
        /// The queue.
        queue: String,
        /// Its dead-letter exchange.
        exchange: String,
    },
    /// It can't die by the key by which it died.
    #[error(
        "BST-0056: what `{queue}` refuses again could be lost: it dead-letters{exchange} by routing key, and the key `{key}` is also a queue's name, so that the message can't go to `{queue}` alone; `--as-published` sends it by the exchange by which it came, `--to` where you say, `--anyway` to `{queue}` all the same"
    )]
    KeyTaken {
        /// The queue.
        queue: String,
        /// Its dead-letter exchange, in words.
        exchange: String,
        /// The key.
        key: String,
    },
}
