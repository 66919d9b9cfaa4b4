//! The participants that Backstitch ships: enough of a shop to prove that a saga is all or
//! nothing.
//!
//! Each aggregate keeps totals beside what is open, so that a proof needs only the snapshots:
//! stock on hand + reserved + sold = received, money actual + captured = deposited + received from
//! others, credit and quotas used + reserved within their limits, a receipt an order. What is
//! settled leaves the snapshot, so it stays small; its events remain.
//!
//! Three more show what is read back: work items (a page folded from three aggregates), a chat (a badge
//! that a saga reads), and offers that expire by themselves.

pub mod chat;
pub mod credit;
pub mod inventory;
pub mod invoices;
pub mod ledger;
pub mod mailer;
pub mod offers;
pub mod orders;
mod payload;
pub mod payments;
pub mod quotas;
mod reservation;
mod seed;
pub mod work;

use std::time::Duration;

pub use credit::Credit;
pub use inventory::Inventory;
pub use invoices::Invoices;
pub use mailer::Mailer;
pub use offers::Offers;
pub use orders::Orders;
pub use payments::Payments;
pub use quotas::Quotas;
pub use reservation::ReservationKey;
pub use seed::seed;

use self::chat::{ChatMessages, Pushes, ReadMarks, UnreadBadge};
use self::work::{WorkActions, WorkItemDetails, WorkItems, WorkPeople};
use crate::participant::Participant;
use crate::participant::history::Kinds;
use crate::projection::{Projections, ReadModel};

/// How long details of a work item that were made on demand are kept when nobody asks for them.
const DETAILS_KEPT_FOR: Duration = Duration::from_hours(1);

/// The participants of the shop, ready to run.
pub fn participants() -> Vec<Participant> {
    vec![
        Participant::new(Inventory::NAME).aggregate::<Inventory>(),
        Participant::new(Orders::NAME).aggregate::<Orders>(),
        Participant::new(Payments::NAME).aggregate::<Payments>(),
        Participant::new(Mailer::NAME).aggregate::<Mailer>(),
        Participant::new(Credit::NAME).aggregate::<Credit>(),
        Participant::new(Quotas::NAME).aggregate::<Quotas>(),
        Participant::new(Invoices::NAME).aggregate::<Invoices>(),
    ]
}

/// All shipped participants: those of the shop, and those whose events are read back. `badges` answers
/// with what it reads from the model.
pub fn participants_reading(model: ReadModel) -> Vec<Participant> {
    let mut all = participants();
    all.extend(read_back());
    all.push(chat::badges(model));
    all
}

fn read_back() -> Vec<Participant> {
    vec![
        Participant::new(WorkItems::NAME).aggregate::<WorkItems>(),
        Participant::new(WorkPeople::NAME).aggregate::<WorkPeople>(),
        Participant::new(WorkActions::NAME).aggregate::<WorkActions>(),
        Participant::new(chat::NAME)
            .aggregate::<ChatMessages>()
            .aggregate::<ReadMarks>(),
        Participant::new(Pushes::NAME).aggregate::<Pushes>(),
        Participant::new(Offers::NAME).aggregate::<Offers>(),
    ]
}

/// The shipped projections, and how each is kept.
pub fn projections() -> Projections {
    Projections::new()
        .live::<WorkItemDetails>()
        .on_demand::<WorkItemDetails>(DETAILS_KEPT_FOR)
        .live::<UnreadBadge>()
}

/// The shipped kinds of aggregates, for those who replay them.
pub fn kinds() -> Kinds {
    let all = participants().into_iter().chain(read_back());
    all.fold(Kinds::default(), |kinds, participant| {
        kinds.and(participant.kinds())
    })
}

#[cfg(test)]
mod tests;
