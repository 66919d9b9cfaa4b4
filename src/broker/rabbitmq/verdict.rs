//! From what the broker answered about a set of messages to the word on each of them.
//!
//! Separate and pure: it is where an unroutable message could be taken for a confirmed one. The
//! library says that a message came back, but not reliably with whose confirm, so returns are
//! counted over the set and matched by destination and message id. Copies that can't be told
//! apart have the same fate or, if only some came back, an unknown one: `Failed`, never a guess.

use std::collections::HashMap;

use lapin::BasicProperties;
use lapin::message::BasicReturnMessage;
use lapin::types::ShortString;

use super::convert::Prepared;
use crate::broker::Published;

/// What the broker answered to one publish.
pub(super) enum Answer {
    /// It has the message, or dropped it; with a message that came back, not necessarily this.
    Ack(Option<Box<BasicReturnMessage>>),
    /// It refused the message; with a message that came back.
    Nack(Option<Box<BasicReturnMessage>>),
    /// It closed the channel over a message of the set, and said this.
    Refused(String),
    /// It closed the channel because it does not let us publish where a message of the set goes.
    Forbidden(String),
    /// It closed the channel because the exchange of a message of the set is missing.
    NoExchange(String),
    /// It closed the connection over something that it was sent.
    Fatal(String),
    /// Channel or connection broke before it answered.
    Lost(String),
    /// It did not answer in time.
    None,
}

/// The word on each message of a set; the answers are those to the messages, in order.
pub(super) fn judge(set: &[&Prepared], answers: &[Answer]) -> Vec<Published> {
    let mut copies: HashMap<Key, Copies> = HashMap::new();
    for prepared in set.iter().filter(|prepared| prepared.mandatory) {
        copies.entry(Key::of(prepared)).or_default().sent += 1;
    }
    for answer in answers {
        if let Answer::Ack(Some(returned)) | Answer::Nack(Some(returned)) = answer
            && let Some(copies) = copies.get_mut(&Key::of_returned(returned))
        {
            copies.returned += 1;
        }
    }
    // While an answer is missing, so may be a return that is attached to it.
    let complete = !answers.iter().any(|answer| matches!(answer, Answer::None));
    set.iter()
        .zip(answers)
        .map(|(prepared, answer)| match answer {
            // Of several, nobody knows which one it was.
            Answer::Refused(why) if set.len() == 1 => Published::Refused(why.clone()),
            Answer::Lost(why)
            | Answer::Refused(why)
            | Answer::Forbidden(why)
            | Answer::Fatal(why)
            | Answer::NoExchange(why) => Published::Failed(why.clone()),
            Answer::None => Published::Failed("the broker did not confirm in time".to_owned()),
            Answer::Nack(_) => Published::Failed(
                "the broker refused the message: the queue is full, or failing".to_owned(),
            ),
            Answer::Ack(_) if !prepared.mandatory => Published::Confirmed,
            Answer::Ack(_) => match copies.get(&Key::of(prepared)) {
                Some(copies) if copies.returned >= copies.sent => unroutable(prepared),
                Some(copies) if copies.returned > 0 => Published::Failed(
                    "one of several equal messages found no queue: it may have been this"
                        .to_owned(),
                ),
                _ if complete => Published::Confirmed,
                _ => Published::Failed(
                    "the broker did not say in time whether a queue took it".to_owned(),
                ),
            },
        })
        .collect()
}

/// The word on a message that no queue took.
fn unroutable(prepared: &Prepared) -> Published {
    if prepared.is_awaited {
        let exchange = &prepared.exchange;
        Published::NotYet(format!(
            "exchange `{exchange}` was made anew, and nobody has bound a queue to it again"
        ))
    } else {
        Published::Unroutable
    }
}

/// What tells one message of a set from another, as far as a returned message shows it.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    exchange: &'a str,
    route: &'a str,
    message_id: Option<&'a str>,
}

#[derive(Default)]
struct Copies {
    sent: usize,
    returned: usize,
}

impl<'a> Key<'a> {
    fn of(prepared: &'a Prepared) -> Self {
        Self {
            exchange: prepared.exchange.as_str(),
            route: prepared.routing_key.as_str(),
            message_id: message_id(&prepared.properties),
        }
    }

    fn of_returned(returned: &'a BasicReturnMessage) -> Self {
        Self {
            exchange: returned.exchange.as_str(),
            route: returned.routing_key.as_str(),
            message_id: message_id(&returned.properties),
        }
    }
}

fn message_id(properties: &BasicProperties) -> Option<&str> {
    properties.message_id().as_ref().map(ShortString::as_str)
}

#[cfg(test)]
mod tests {
    use lapin::message::Delivery;

    use super::*;
    use crate::broker::Outgoing;
    use crate::broker::rabbitmq::convert;
    use crate::message::{Destination, Message};

    fn message(queue: &str, id: Option<&str>, mandatory: bool) -> Prepared {
        let mut message = Message::default();
        message.properties.message_id = id.map(str::to_owned);
        let outgoing = Outgoing {
            destination: Destination::queue(queue),
            message,
            mandatory,
        };
        convert::outgoing(outgoing).ok().unwrap()
    }

    fn returned(prepared: &Prepared) -> Box<BasicReturnMessage> {
        let mut delivery = Delivery::mock(
            0,
            prepared.exchange.clone(),
            prepared.routing_key.clone(),
            false,
            Vec::new(),
        );
        delivery.properties = prepared.properties.clone();
        Box::new(BasicReturnMessage {
            delivery,
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
        })
    }

    /// `C`onfirmed, `U`nroutable, `F`ailed.
    fn verdicts(set: &[&Prepared], answers: Vec<Answer>) -> String {
        let letter = |published| match published {
            Published::Confirmed => 'C',
            Published::Unroutable => 'U',
            Published::Failed(_) => 'F',
            Published::Refused(_) => 'R',
            Published::NotYet(_) => 'N',
        };
        judge(set, &answers).into_iter().map(letter).collect()
    }

    #[test]
    fn a_return_counts_for_its_own_message_whichever_confirm_it_came_with() {
        let (a, b) = (
            message("q", Some("a"), true),
            message("gone", Some("b"), true),
        );
        let set = [&a, &b];
        for answers in [
            vec![Answer::Ack(Some(returned(&b))), Answer::Ack(None)],
            vec![Answer::Ack(None), Answer::Ack(Some(returned(&b)))],
        ] {
            assert_eq!(verdicts(&set, answers), "CU");
        }
        let refused = vec![Answer::Nack(Some(returned(&b))), Answer::Ack(None)];
        assert_eq!(verdicts(&set, refused), "FU");
    }

    #[test]
    fn the_same_id_to_two_queues_is_two_messages() {
        let (a, b) = (
            message("q", Some("a"), true),
            message("gone", Some("a"), true),
        );
        let answers = vec![Answer::Ack(Some(returned(&b))), Answer::Ack(None)];
        assert_eq!(verdicts(&[&a, &b], answers), "CU");
    }

    #[test]
    fn equal_messages_are_unroutable_together_and_unknown_when_only_some_came_back() {
        for id in [Some("a"), None] {
            let (a, b) = (message("q", id, true), message("q", id, true));
            let both = vec![
                Answer::Ack(Some(returned(&a))),
                Answer::Ack(Some(returned(&b))),
            ];
            assert_eq!(verdicts(&[&a, &b], both), "UU");
            let one = vec![Answer::Ack(None), Answer::Ack(Some(returned(&b)))];
            assert_eq!(verdicts(&[&a, &b], one), "FF");
        }
    }

    #[test]
    fn a_message_that_need_not_arrive_is_confirmed() {
        let event = message("nobody", None, false);
        assert_eq!(verdicts(&[&event], vec![Answer::Ack(None)]), "C");
    }

    #[test]
    fn what_its_receivers_have_to_come_back_for_is_not_yet_unroutable() {
        let mut event = message("e", None, true);
        event.is_awaited = true;
        let came_back = vec![Answer::Ack(Some(returned(&event)))];
        assert_eq!(verdicts(&[&event], came_back), "N");
        assert_eq!(verdicts(&[&event], vec![Answer::Ack(None)]), "C");
    }

    #[test]
    fn a_refusal_is_for_good_only_if_it_can_be_but_one_message() {
        let (a, b) = (message("q", Some("a"), true), message("q", Some("b"), true));
        let refused = || Answer::Refused("406".to_owned());
        assert_eq!(verdicts(&[&a], vec![refused()]), "R");
        assert_eq!(verdicts(&[&a, &b], vec![refused(), refused()]), "FF");
        assert_eq!(
            verdicts(&[&a, &b], vec![Answer::Ack(None), refused()]),
            "CF"
        );
    }

    #[test]
    fn silence_is_never_taken_for_success() {
        let (a, event) = (message("q", Some("a"), true), message("e", None, false));
        let lost = || Answer::Lost("gone".to_owned());
        assert_eq!(verdicts(&[&a, &event], vec![lost(), lost()]), "FF");
        assert_eq!(
            verdicts(&[&a, &event], vec![Answer::Ack(None), lost()]),
            "CF"
        );
        // The return for `a` may be attached to the confirm that never came.
        let late = vec![Answer::Ack(None), Answer::None];
        assert_eq!(verdicts(&[&a, &event], late), "FF");
        let late = vec![Answer::None, Answer::Ack(None)];
        assert_eq!(verdicts(&[&a, &event], late), "FC");
    }
}
