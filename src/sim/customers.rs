//! How customers of the simulated world start sagas.

use super::network::SimBroker;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, Outgoing, Published};
use crate::message::{Destination, Message, START_QUEUE};

/// Publishes a start until the broker says it has the message, as a careful client does.
pub(super) async fn publish_until_confirmed(broker: &SimBroker<MemoryBroker>, message: &Message) {
    let outgoing = || Outgoing {
        destination: Destination::queue(START_QUEUE),
        message: message.clone(),
        mandatory: true,
    };
    while broker.publish(vec![outgoing()]).await != [Published::Confirmed] {}
}
