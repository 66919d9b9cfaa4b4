//! The participants that Backstitch ships: enough of a shop to prove that a saga is all or
//! nothing.
//!
//! Each aggregate keeps totals beside what is open, so that a proof needs only the snapshots:
//! stock on hand + reserved + sold = received, money actual + captured = deposited + received from
//! others, credit and quotas used + reserved within their limits, a receipt an order. What is
//! settled leaves the snapshot, so it stays small; its events remain.

pub mod credit;
pub mod inventory;
pub mod invoices;
pub mod ledger;
pub mod mailer;
pub mod orders;
pub mod payments;
pub mod quotas;
mod reservation;
mod seed;

use serde::de::DeserializeOwned;

pub use credit::Credit;
pub use inventory::Inventory;
pub use invoices::Invoices;
pub use mailer::Mailer;
pub use orders::Orders;
pub use payments::Payments;
pub use quotas::Quotas;
pub use reservation::ReservationKey;
pub use seed::seed;

use crate::canonical::respelled;
use crate::participant::{Command, Participant, Rejection};

/// All shipped participants, ready to run.
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

/// A payload as a type, or a rejection that says what is wrong with it.
fn payload<T: DeserializeOwned>(command: &Command) -> Result<T, Rejection> {
    if let Ok(payload) = T::deserialize(&command.payload) {
        return Ok(payload);
    }
    // A whole number may be written `10.0`; and read from text, what is wrong has a better name.
    let text = respelled(&command.payload).to_string();
    serde_json::from_str(&text)
        .map_err(|error| Rejection::new(format!("payload of `{}`: {error}", command.name)))
}

/// A text field of the payload: the id of the aggregate that is meant.
fn id_field(command: &Command, field: &str) -> Result<String, Rejection> {
    command
        .payload
        .get(field)
        .and_then(serde_json::Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| {
            Rejection::new(format!(
                "payload of `{}`: `{field}` must be there and be text",
                command.name
            ))
        })
}

/// A command's name that no aggregate was registered for.
fn not_handled(command: &Command) -> Rejection {
    Rejection::new(format!("`{}` is not handled here", command.name))
}

#[cfg(test)]
mod tests;
