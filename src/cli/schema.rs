//! `backstitch schema`: the JSON Schema of saga definitions, for editors.

use super::exit::{Exit, Failure};
use super::output;
use crate::definition::LANGUAGE_SCHEMA;

pub(super) fn run() -> Result<Exit, Failure> {
    output::print_text_of_json(LANGUAGE_SCHEMA)?;
    Ok(Exit::Done)
}
