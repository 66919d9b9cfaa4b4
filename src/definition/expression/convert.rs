//! JSON to CEL and back, within bounds on the data.
//!
//! Only what an expression uses is converted, and text is borrowed. Bounds apply to expressions
//! that loop: without a loop the work is proportional to the data and the source, and both are
//! bounded already.

use std::collections::HashMap;

use cel::common::types::{CelBool, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::{CowVal, Val};
use cel::{Context, ExecutionError};
use serde_json::{Map, Value};

use super::number::Numeral;
use super::path::{given, no_item, no_saga, whole_saga};
use super::references::{Extent, HASH, References};
use super::scope::EvaluationScope;
use crate::canonical::fingerprint_text;

/// Longest list or largest object in the data of an expression that loops.
const LOOP_ITEMS_MAX: usize = 1_000;
/// Longest list times longest text in the data of an expression that loops: what one `+` in a loop
/// may build.
const LOOP_BYTES_MAX: usize = 16 * 1024 * 1024;

type Boxed<'v> = Box<dyn Val + 'v>;

/// Makes known to CEL what the expression refers to.
pub(super) fn bind<'v>(
    context: &mut Context<'_, 'v>,
    references: &References,
    scope: &EvaluationScope<'v>,
    replies: &'v [(&'v str, Value)],
) -> Result<(), String> {
    let mut size = Size::default();
    if references.input.is_used() {
        let input = part(scope.input, &references.input, &mut size);
        context.add_variable_as_val("input", input);
    }
    if references.item.is_used() {
        let item = scope.item.ok_or_else(no_item)?;
        context.add_variable_as_val("item", part(item, &references.item, &mut size));
    }
    if references.saga.is_used() {
        let facts = scope.saga.ok_or_else(no_saga)?;
        let fields = whole_saga(facts);
        context.add_variable_as_val("saga", owned(&fields));
    }
    for name in &references.given {
        let value = to_cel(given(scope, name)?, &mut size);
        context.add_variable_as_val(*name, value);
    }
    if !references.steps.is_empty() {
        let steps: HashMap<CelMapKey<'v>, Boxed<'v>> = replies
            .iter()
            .map(|(step, reply)| (CelMapKey::from(*step), to_cel(reply, &mut size)))
            .collect();
        context.add_variable_as_val("steps", Box::new(CelMap::from(steps)));
    }
    if references.loops {
        size.check()?;
    }
    Ok(())
}

/// How large the converted data is, in what makes loops dear.
#[derive(Default)]
struct Size {
    items: usize,
    text: usize,
}

impl Size {
    fn check(&self) -> Result<(), String> {
        if self.items > LOOP_ITEMS_MAX {
            return Err(format!(
                "the data has a list of {} items; an expression that loops takes lists of at most {LOOP_ITEMS_MAX}",
                self.items
            ));
        }
        if self.items.saturating_mul(self.text) > LOOP_BYTES_MAX {
            return Err(format!(
                "the data is too large for an expression that loops: {} items and a text of {} bytes",
                self.items, self.text
            ));
        }
        Ok(())
    }
}

fn part<'v>(value: &'v Value, extent: &Extent, size: &mut Size) -> Boxed<'v> {
    match (extent, value) {
        (Extent::Fields(names), Value::Object(fields)) => {
            let used: HashMap<CelMapKey<'v>, Boxed<'v>> = fields
                .iter()
                .filter(|(name, _)| names.contains(*name))
                .map(|(name, value)| (CelMapKey::from(name.as_str()), to_cel(value, size)))
                .collect();
            Box::new(CelMap::from(used))
        }
        _ => to_cel(value, size),
    }
}

fn to_cel<'v>(value: &'v Value, size: &mut Size) -> Boxed<'v> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::Number(number) => Box::new(Numeral::from(number)),
        Value::String(text) => {
            size.text = size.text.max(text.len());
            Box::new(CelString::from(text.as_str()))
        }
        Value::Array(items) => {
            size.items = size.items.max(items.len());
            let items: Vec<Boxed<'v>> = items.iter().map(|item| to_cel(item, size)).collect();
            Box::new(CelList::from(items))
        }
        Value::Object(fields) => {
            size.items = size.items.max(fields.len());
            let fields: HashMap<CelMapKey<'v>, Boxed<'v>> = fields
                .iter()
                .map(|(name, value)| (CelMapKey::from(name.as_str()), to_cel(value, size)))
                .collect();
            Box::new(CelMap::from(fields))
        }
    }
}

/// An object of texts, copied.
fn owned(object: &Value) -> Box<dyn Val> {
    let fields: HashMap<CelMapKey<'static>, Box<dyn Val>> = object
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| {
            let text: Box<dyn Val> = Box::new(CelString::from(value.as_str()?.to_owned()));
            Some((CelMapKey::from(name.clone()), text))
        })
        .collect();
    Box::new(CelMap::from(fields))
}

/// `hash(value)`: the fingerprint of a value as JSON.
pub(super) fn hash<'b, 'v>(
    arguments: Vec<CowVal<'b, 'v>>,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let refuse = |why: String| ExecutionError::function_error(HASH, why);
    let [value] = arguments.as_slice() else {
        return Err(refuse("it takes one value".to_owned()));
    };
    let json = to_json(value.as_ref()).map_err(refuse)?;
    Ok(CowVal::owned(CelString::from(fingerprint_text(&json))))
}

/// What CEL computed, as JSON.
pub(super) fn to_json(value: &dyn Val) -> Result<Value, String> {
    if let Some(number) = value.downcast_ref::<Numeral>() {
        return Ok(Value::Number(number.to_json()));
    }
    if let Some(text) = value.downcast_ref::<CelString>() {
        return Ok(Value::String(text.inner().to_owned()));
    }
    if let Some(flag) = value.downcast_ref::<CelBool>() {
        return Ok(Value::Bool(*flag.inner()));
    }
    if value.downcast_ref::<CelNull>().is_some() {
        return Ok(Value::Null);
    }
    if let Some(items) = value.downcast_ref::<CelList>() {
        return items.inner().iter().map(|item| to_json(&**item)).collect();
    }
    if let Some(map) = value.downcast_ref::<CelMap>() {
        let mut fields = Map::new();
        for (key, value) in map.inner() {
            let CelMapKey::String(name) = key else {
                return Err(format!(
                    "the result has the field name {key:?}, which is not text"
                ));
            };
            fields.insert(name.inner().to_owned(), to_json(&**value)?);
        }
        return Ok(Value::Object(fields));
    }
    let kind = value.get_type().name();
    Err(format!(
        "the result is of type {kind}, which JSON can't say"
    ))
}
