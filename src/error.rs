//! What an error means to the one who meets it: how to react, and where to read on.
//!
//! Each layer has its own error enum with its sources kept; those of the store and the broker can say
//! which [`Class`] they are. What an operator sees carries a [`Code`] with a section in `docs/errors.md`.

use std::fmt;

/// Whether to try again what has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The world is at fault (connection lost, deadlock): do the same again, paced.
    Retry,
    /// It would fail again (refused, damaged, set up wrongly): a node makes a dead letter of the message
    /// that it is about, a participant or a command ends with the error.
    Permanent,
}

/// A stable number for an error that a person may look up, written `BST-0012`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BST-{:04}", self.0)
    }
}

impl Code {
    /// What its section in `docs/errors.md` is called.
    pub fn title(self) -> &'static str {
        let found = CODES.iter().find(|(code, _)| *code == self);
        found.map_or("", |(_, title)| title)
    }
}

/// Every code in use, with its title. `docs/errors.md` has a section for each.
pub const CODES: &[(Code, &str)] = &[
    (code::BODY_NOT_JSON, "the body is not JSON"),
    (code::BODY_TOO_LARGE, "the body is larger than the limit"),
    (
        code::BODY_TOO_DEEP,
        "the body is nested deeper than the limit",
    ),
    (
        code::BODY_TOO_MANY_VALUES,
        "the body has more values than the limit",
    ),
    (code::TYPE_MISSING, "the message has no type"),
    (code::SAGA_UNKNOWN, "no definition has this name"),
    (
        code::INPUT_INVALID,
        "the input breaks the definition's schema",
    ),
    (
        code::KEY_INVALID,
        "the key can't be computed from the input",
    ),
    (
        code::KEY_CONFLICT,
        "the key is taken by a saga with another input",
    ),
    (
        code::SUCCESSION_UNKNOWN,
        "the start claims to replace a saga that has not given way",
    ),
    (
        code::TICK_FAILED,
        "the input of a schedule's tick can't be computed",
    ),
    (
        code::CORRELATION_MISSING,
        "the reply has no usable correlation id",
    ),
    (
        code::CORRELATION_FORGED,
        "the reply's correlation id was not issued by us",
    ),
    (
        code::REPLY_FOR_NO_SAGA,
        "the reply is for a saga that does not exist",
    ),
    (
        code::REPLY_UNEXPECTED,
        "the reply is for a step that was never asked",
    ),
    (
        code::OUTCOME_UNKNOWN,
        "the reply's outcome is none of succeeded, rejected, failed",
    ),
    (code::JOURNAL_UNREADABLE, "the saga's journal can't be read"),
    (
        code::DEFINITION_DAMAGED,
        "the saga's stored definition is damaged",
    ),
    (
        code::EVENT_ILLEGAL,
        "what follows from the message can't be where the saga stands",
    ),
    (
        code::STORE_REFUSED,
        "the database refuses what follows from the message",
    ),
    (
        code::SAGA_TOO_LARGE,
        "the saga would hold more than one saga may",
    ),
    (
        code::COMMAND_UNKNOWN,
        "the participant does not handle this command",
    ),
    (
        code::COMMAND_MALFORMED,
        "the command lacks what the protocol requires",
    ),
    (
        code::PAYLOAD_CHANGED,
        "the same message id came with another payload",
    ),
    (
        code::CONFIRM_WITHOUT_RESERVE,
        "confirm came for something never reserved",
    ),
    (
        code::COMPENSATE_AFTER_CONFIRM,
        "compensate came for something already confirmed",
    ),
    (
        code::DELIVERIES_EXHAUSTED,
        "handling the message failed too many times",
    ),
    (
        code::REQUEST_MALFORMED,
        "the HTTP request can't be understood",
    ),
    (code::SAGA_NOT_FOUND, "there is no saga with this id"),
    (code::NODE_UNAVAILABLE, "the node can't do this now"),
    (code::NODE_BUSY, "the node handles too many requests"),
    (code::REQUEST_TIMEOUT, "the request took too long"),
    (
        code::NOT_POSSIBLE,
        "that can't be done to the saga where it stands",
    ),
    (
        code::HOST_REFUSED,
        "the HTTP request is for another host than this machine",
    ),
    (
        code::UNAUTHENTICATED,
        "the HTTP request does not say who sends it",
    ),
    (
        code::SCOPE_MISSING,
        "the caller may not do what the HTTP request asks for",
    ),
    (
        code::ORIGIN_REFUSED,
        "the HTTP request comes from another site's page",
    ),
    (code::DEAD_LETTERED, "the broker dead-lettered the message"),
    (code::JOB_NOT_FOUND, "there is no job with this id"),
    (
        code::KEY_REUSED,
        "the idempotency key was used for another request",
    ),
    (
        code::LETTER_NOT_FOUND,
        "there is no dead letter with this id",
    ),
    (
        code::LETTER_REFUSED,
        "the dead letter can't be replayed, edited or discarded as asked",
    ),
    (
        code::ROUTE_WOULD_LOSE,
        "what is refused again there would be lost",
    ),
    (
        code::LOOK_WOULD_WEAR_OUT,
        "looking at the queue's messages would use up their deliveries",
    ),
    (code::ROUTE_FORBIDDEN, "messages are not sent there again"),
    (
        code::SIGNAL_MALFORMED,
        "the signal does not say what it is or which saga it is for",
    ),
    (
        code::SIGNAL_FOR_NO_SAGA,
        "the signal is for a saga that does not exist",
    ),
    (code::SIGNAL_TOO_LATE, "the signal's saga has ended"),
    (
        code::SIGNAL_UNKNOWN,
        "the signal's saga never waits for a signal of this name",
    ),
    (
        code::SIGNALS_FULL,
        "the signal's saga keeps as many signals as it may",
    ),
    (
        code::SIGNAL_ROLLING_BACK,
        "the signal's saga is being rolled back",
    ),
    (
        code::SIGNAL_CONFLICT,
        "another signal with the same id came before",
    ),
    (
        code::EXPIRY_UNREADABLE,
        "the reply does not say in a readable way when the reservation lapses",
    ),
    (code::SCHEDULE_UNKNOWN, "there is no such schedule"),
    (
        code::EVENT_UNUSABLE,
        "nothing can be made of the domain event",
    ),
    (
        code::EVENT_AMBIGUOUS,
        "the domain event came by a way that does not say which it is",
    ),
    (
        code::TOPOLOGY_TROUBLE,
        "a queue, an exchange or a binding can't be had",
    ),
    (
        code::PROPERTIES_UNREADABLE,
        "the message's properties can't be read",
    ),
    (
        code::BROKER_REFUSED,
        "the broker will never take the message",
    ),
    (
        code::SCHEMA_BEHIND,
        "the database has no tables, or an older version's",
    ),
    (
        code::SCHEMA_TOO_NEW,
        "the database's tables need a newer version",
    ),
    (
        code::FORMAT_TOO_NEW,
        "a newer release has written what this one can't read",
    ),
    (
        code::STORE_TOO_SLOW,
        "the database takes too long over what follows from the message",
    ),
    (
        code::HANDLING_PANICKED,
        "handling the message ended in a panic",
    ),
    (
        code::NODE_ENDED,
        "the node ended each time it handled the message",
    ),
    (
        code::PROJECTION_STOPPED,
        "a projection can't read a document or an event",
    ),
    (code::AGGREGATE_NOT_FOUND, "there is no such aggregate"),
    (
        code::STATE_UNKNOWN,
        "the aggregate's state at that point can't be told",
    ),
    (
        code::DOCUMENT_NOT_FOUND,
        "there is no such projection or document",
    ),
    (
        code::DOCUMENT_UNAVAILABLE,
        "the document can't be read in this way now",
    ),
    (
        code::ADDRESS_REFUSED,
        "the broker can't take a message to this address",
    ),
];

/// The codes by name.
pub mod code {
    use super::Code;

    /// The body is not JSON.
    pub const BODY_NOT_JSON: Code = Code(10);
    /// The body is larger than the limit.
    pub const BODY_TOO_LARGE: Code = Code(11);
    /// The body is nested deeper than the limit.
    pub const BODY_TOO_DEEP: Code = Code(19);
    /// The body has more values than the limit.
    pub const BODY_TOO_MANY_VALUES: Code = Code(27);
    /// The message has no type.
    pub const TYPE_MISSING: Code = Code(12);
    /// No definition has this name.
    pub const SAGA_UNKNOWN: Code = Code(13);
    /// The input breaks the definition's schema.
    pub const INPUT_INVALID: Code = Code(14);
    /// The key can't be computed from the input.
    pub const KEY_INVALID: Code = Code(15);
    /// The key is taken by a saga with another input.
    pub const KEY_CONFLICT: Code = Code(16);
    /// The start claims to replace a saga that has not given way.
    pub const SUCCESSION_UNKNOWN: Code = Code(17);
    /// The input of a schedule's tick can't be computed.
    pub const TICK_FAILED: Code = Code(18);
    /// The reply has no usable correlation id.
    pub const CORRELATION_MISSING: Code = Code(20);
    /// The reply's correlation id was not issued by us.
    pub const CORRELATION_FORGED: Code = Code(21);
    /// The reply is for a saga that does not exist.
    pub const REPLY_FOR_NO_SAGA: Code = Code(22);
    /// The reply is for a step that was never asked.
    pub const REPLY_UNEXPECTED: Code = Code(23);
    /// The reply's outcome is none of succeeded, rejected, failed.
    pub const OUTCOME_UNKNOWN: Code = Code(24);
    /// The saga's journal can't be read.
    pub const JOURNAL_UNREADABLE: Code = Code(25);
    /// The saga's definition is not what was stored.
    pub const DEFINITION_DAMAGED: Code = Code(97);
    /// What follows from the message can't be where the saga stands.
    pub const EVENT_ILLEGAL: Code = Code(28);
    /// The database refuses to store what follows from the message.
    pub const STORE_REFUSED: Code = Code(26);
    /// The saga would hold more than one saga may.
    pub const SAGA_TOO_LARGE: Code = Code(36);
    /// The participant does not handle this command.
    pub const COMMAND_UNKNOWN: Code = Code(30);
    /// The command lacks what the protocol requires.
    pub const COMMAND_MALFORMED: Code = Code(31);
    /// The same message id came with another payload.
    pub const PAYLOAD_CHANGED: Code = Code(32);
    /// Confirm came for something never reserved.
    pub const CONFIRM_WITHOUT_RESERVE: Code = Code(33);
    /// Compensate came for something already confirmed.
    pub const COMPENSATE_AFTER_CONFIRM: Code = Code(35);
    /// Handling the message failed too many times.
    pub const DELIVERIES_EXHAUSTED: Code = Code(34);
    /// The HTTP request can't be understood.
    pub const REQUEST_MALFORMED: Code = Code(40);
    /// There is no saga with this id.
    pub const SAGA_NOT_FOUND: Code = Code(41);
    /// The node can't do this now.
    pub const NODE_UNAVAILABLE: Code = Code(42);
    /// The node handles too many requests.
    pub const NODE_BUSY: Code = Code(43);
    /// The request took too long.
    pub const REQUEST_TIMEOUT: Code = Code(44);
    /// That can't be done to the saga where it stands.
    pub const NOT_POSSIBLE: Code = Code(45);
    /// The HTTP request is for another host than this machine.
    pub const HOST_REFUSED: Code = Code(46);
    /// Nothing that came with an HTTP request says whose it is.
    pub const UNAUTHENTICATED: Code = Code(47);
    /// The caller lacks a scope.
    pub const SCOPE_MISSING: Code = Code(48);
    /// A page of another origin sent an HTTP request.
    pub const ORIGIN_REFUSED: Code = Code(49);
    /// The broker dead-lettered the message.
    pub const DEAD_LETTERED: Code = Code(50);
    /// There is no job with this id.
    pub const JOB_NOT_FOUND: Code = Code(53);
    /// The idempotency key was used for another request.
    pub const KEY_REUSED: Code = Code(54);
    /// There is no dead letter with this id.
    pub const LETTER_NOT_FOUND: Code = Code(51);
    /// The dead letter can't be replayed, edited or discarded as asked.
    pub const LETTER_REFUSED: Code = Code(52);
    /// What is refused again there would be lost.
    pub const ROUTE_WOULD_LOSE: Code = Code(56);
    /// Looking at the queue's messages would use up their deliveries.
    pub const LOOK_WOULD_WEAR_OUT: Code = Code(57);
    /// Messages are not sent there again.
    pub const ROUTE_FORBIDDEN: Code = Code(58);
    /// The signal does not say what it is or which saga it is for.
    pub const SIGNAL_MALFORMED: Code = Code(60);
    /// The signal is for a saga that does not exist.
    pub const SIGNAL_FOR_NO_SAGA: Code = Code(61);
    /// The signal's saga has ended.
    pub const SIGNAL_TOO_LATE: Code = Code(62);
    /// The signal's saga never waits for a signal of this name.
    pub const SIGNAL_UNKNOWN: Code = Code(63);
    /// The signal's saga keeps as many signals as it may.
    pub const SIGNALS_FULL: Code = Code(64);
    /// The signal's saga is being rolled back.
    pub const SIGNAL_ROLLING_BACK: Code = Code(66);
    /// Another signal with the same id came before.
    pub const SIGNAL_CONFLICT: Code = Code(70);
    /// The reply does not say in a readable way when the reservation lapses.
    pub const EXPIRY_UNREADABLE: Code = Code(87);
    /// There is no such schedule.
    pub const SCHEDULE_UNKNOWN: Code = Code(88);
    /// Nothing can be made of the domain event.
    pub const EVENT_UNUSABLE: Code = Code(65);
    /// The domain event came by a way that does not say which it is.
    pub const EVENT_AMBIGUOUS: Code = Code(75);
    /// A queue, an exchange or a binding can't be had.
    pub const TOPOLOGY_TROUBLE: Code = Code(76);
    /// The message's properties can't be read.
    pub const PROPERTIES_UNREADABLE: Code = Code(77);
    /// The broker will never take the message.
    pub const BROKER_REFUSED: Code = Code(78);
    /// The database has no tables, or those of an older version.
    pub const SCHEMA_BEHIND: Code = Code(84);
    /// A newer version has changed the tables in a way that this one can't work with.
    pub const SCHEMA_TOO_NEW: Code = Code(85);
    /// A newer release has written what this one can't read.
    pub const FORMAT_TOO_NEW: Code = Code(86);
    /// The database takes too long over what follows from the message.
    pub const STORE_TOO_SLOW: Code = Code(91);
    /// Handling the message ended in a panic.
    pub const HANDLING_PANICKED: Code = Code(92);
    /// The node ended each time it handled the message.
    pub const NODE_ENDED: Code = Code(94);
    /// A projection can't read a document or event, and stands still.
    pub const PROJECTION_STOPPED: Code = Code(110);
    /// There is no such aggregate.
    pub const AGGREGATE_NOT_FOUND: Code = Code(111);
    /// The aggregate's state at that point can't be told.
    pub const STATE_UNKNOWN: Code = Code(112);
    /// There is no such projection, or no such document.
    pub const DOCUMENT_NOT_FOUND: Code = Code(113);
    /// The document can't be read in this way now.
    pub const DOCUMENT_UNAVAILABLE: Code = Code(114);
    /// The broker can't take a message to this address.
    pub const ADDRESS_REFUSED: Code = Code(93);
}
