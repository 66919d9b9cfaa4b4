//! YAML to the tree.
use super::{Definition, Problems};
/// Parses and checks a definition; `file` is named in the problems.
pub fn parse(_source: &str, _file: &str) -> Result<Definition, Problems> {
    unimplemented!()
}
