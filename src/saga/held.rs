//! How much data a saga holds, and whether there is room for more.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::{Excess, Extent, SAGA};

/// How much data a saga holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Bytes, as JSON.
    pub bytes: usize,
    /// JSON values.
    pub values: usize,
    /// Objects among them.
    #[serde(default)]
    pub objects: usize,
}

impl Held {
    pub(super) fn add(&mut self, value: &Value) {
        *self = self.with(Extent::of(value));
    }

    pub(super) fn replace(&mut self, before: Option<&Value>, value: &Value) {
        self.add(value);
        if let Some(before) = before {
            self.remove(before);
        }
    }

    /// Snapshots of an older version did not say what was held, so there may be less than is removed.
    pub(super) fn remove(&mut self, value: &Value) {
        let extent = Extent::of(value);
        self.bytes = self.bytes.saturating_sub(extent.bytes);
        self.values = self.values.saturating_sub(extent.values);
        self.objects = self.objects.saturating_sub(extent.objects);
    }

    /// Bytes of memory that it takes, roughly.
    pub fn memory(self) -> usize {
        self.whole().memory()
    }

    fn whole(self) -> Extent {
        Extent {
            bytes: self.bytes,
            depth: 0,
            values: self.values,
            objects: self.objects,
        }
    }

    pub(super) fn with(self, more: Extent) -> Self {
        Self {
            bytes: self.bytes + more.bytes,
            values: self.values + more.values,
            objects: self.objects + more.objects,
        }
    }

    /// Whether one saga may hold so much.
    ///
    /// # Errors
    /// Says of what it is too much.
    pub(super) fn check(self) -> Result<(), String> {
        SAGA.check(self.whole()).map_err(too_much)
    }
}

fn too_much(excess: Excess) -> String {
    match excess {
        Excess::Bytes { most, .. } => format!(
            "the saga would hold more than the {most} bytes that one saga may: its input, payloads and replies together"
        ),
        Excess::Values { most } | Excess::Depth { most } => format!(
            "the saga would hold more than the {most} JSON values that one saga may: its input, payloads and replies together"
        ),
    }
}
