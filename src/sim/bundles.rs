//! Sub-sagas in the simulated world: some orders that stand or fall together.
//!
//! A bundle runs its first order as a sub-saga and then, at the same time, the others, each as the
//! sub-saga of one in between. So what is proved of orders alone is proved of sub-sagas two deep;
//! here is proved that a bundle and all that it runs ended alike.

use bytes::Bytes;
use serde_json::json;

use super::customers::publish_until_confirmed;
use super::network::SimBroker;
use crate::broker::memory::MemoryBroker;
use crate::id::{SagaId, StepPath};
use crate::message::{Message, Properties};
use crate::proof::Order;
use crate::saga::Status;
use crate::store::{ListFilter, SagaHead, Store, StoreError};

/// The sagas that are simulated, besides that of one order.
pub(super) const DEFINITIONS: [(&str, &str); 2] = [
    (
        "impatient-bundle.yaml",
        include_str!("impatient-bundle.yaml"),
    ),
    ("wrapped-order.yaml", include_str!("wrapped-order.yaml")),
];
/// The outermost of them.
pub(super) const SAGA: &str = "impatient-bundle";
/// The one in between.
const WRAPPER: &str = "wrapped-order";

/// Orders of one bundle.
pub(super) const ORDERS_EACH: usize = 3;

/// Some orders, all or none.
#[derive(Clone)]
pub(super) struct Bundle {
    key: String,
    orders: Vec<Order>,
}

/// Ties up orders in the order of their names.
pub(super) fn tie<'o>(orders: impl Iterator<Item = &'o Order>) -> Vec<Bundle> {
    let orders: Vec<Order> = orders.cloned().collect();
    let tie = |(number, orders): (usize, &[Order])| Bundle {
        key: format!("bundle-{number}"),
        orders: orders.to_vec(),
    };
    orders.chunks(ORDERS_EACH).enumerate().map(tie).collect()
}

impl Bundle {
    pub(super) async fn place(&self, broker: &SimBroker<MemoryBroker>) {
        let (first, rest) = self.orders.split_at(1.min(self.orders.len()));
        let body = json!({ "bundle_id": self.key, "first": first.first(), "rest": rest });
        let message = Message {
            properties: Properties {
                message_id: Some(format!("start-{}", self.key)),
                kind: Some(SAGA.to_owned()),
                ..Properties::default()
            },
            body: Bytes::from(body.to_string()),
        };
        publish_until_confirmed(broker, &message).await;
    }
}

/// How the bundles ended.
pub(super) struct Ends {
    /// What must not be.
    pub(super) wrong: Vec<String>,
    /// Orders that were never begun, as it should be.
    pub(super) never_begun: Vec<String>,
    pub(super) completed: u64,
    pub(super) compensated: u64,
}

/// Compares each bundle with all sagas that it ran.
pub(super) async fn compare(
    store: &dyn Store,
    bundles: &[Bundle],
    order_saga: &str,
) -> Result<Ends, StoreError> {
    let sagas = Sagas { store, order_saga };
    let mut ends = Ends {
        wrong: Vec::new(),
        never_begun: Vec::new(),
        completed: 0,
        compensated: 0,
    };
    for bundle in bundles {
        let Some(head) = sagas.by_key(SAGA, &bundle.key).await? else {
            ends.wrong.push(format!("{} has no saga", bundle.key));
            continue;
        };
        match head.status {
            Status::Completed => ends.completed += 1,
            _ => ends.compensated += 1,
        }
        for (number, order) in bundle.orders.iter().enumerate() {
            let runs = sagas.run_for(&head, number).await?;
            for (what, run) in &runs {
                let status = run.as_ref().map(|run| run.status);
                let alike = status == Some(head.status)
                    || status.is_none() && head.status == Status::Compensated;
                if !alike {
                    let id = &order.order_id;
                    ends.wrong.push(format!(
                        "{} is {}, its {what} {id} {status:?}",
                        bundle.key, head.status
                    ));
                }
            }
            // The innermost comes last. One that was rolled back before it began has no business key.
            let run = runs.last().and_then(|(_, run)| run.as_ref());
            if run.is_none_or(|run| run.key != order.order_id) {
                ends.never_begun.push(order.order_id.clone());
            }
        }
    }
    Ok(ends)
}

struct Sagas<'a> {
    store: &'a dyn Store,
    order_saga: &'a str,
}

impl Sagas<'_> {
    async fn by_key(&self, name: &str, key: &str) -> Result<Option<SagaHead>, StoreError> {
        let filter = ListFilter {
            name: Some(name.to_owned()),
            key: Some(key.to_owned()),
            limit: 1,
            ..ListFilter::default()
        };
        Ok(self.store.list(&filter).await?.into_iter().next())
    }

    /// The sagas that a bundle runs for one of its orders, by their derived ids.
    async fn run_for(
        &self,
        bundle: &SagaHead,
        number: usize,
    ) -> Result<Vec<(String, Option<SagaHead>)>, StoreError> {
        let mut ids: Vec<(&str, SagaId)> = Vec::new();
        match number.checked_sub(1) {
            None => {
                let id = bundle.id.of_child(&StepPath::plain("first"));
                ids.push((self.order_saga, id));
            }
            Some(index) => {
                // Bounded by ORDERS_EACH.
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                let wrapper = bundle.id.of_child(&StepPath::at("rest", &[index]));
                let order = wrapper.of_child(&StepPath::plain("order"));
                ids.extend([(WRAPPER, wrapper), (self.order_saga, order)]);
            }
        }
        let mut heads = Vec::new();
        for (name, id) in ids {
            let head = crate::view::read_head(self.store, id).await?;
            heads.push((name.to_owned(), head));
        }
        Ok(heads)
    }
}
