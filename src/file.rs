//! Reading files that somebody names: never more than is allowed, whatever is behind the name.
//!
//! Asking for the length first would not do: a device and a pipe have none.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// What a file has, if that is at most `bytes_max` bytes; else what is wrong, without its name.
pub fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() > bytes_max {
        return Err(format!("it is larger than {bytes_max} bytes"));
    }
    Ok(bytes)
}

/// The same as text.
pub fn read_text(path: &Path, bytes_max: usize) -> Result<String, String> {
    String::from_utf8(read(path, bytes_max)?).map_err(|_| "it is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_is_allowed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "four").unwrap();
        assert_eq!(read_text(file.path(), 4).unwrap(), "four");
        assert!(read(file.path(), 3).unwrap_err().contains("larger than 3"));
        std::fs::write(file.path(), [0xff]).unwrap();
        assert!(read_text(file.path(), 4).unwrap_err().contains("UTF-8"));
        let endless = Path::new("/dev/zero");
        assert!(read(endless, 9).unwrap_err().contains("larger than 9"));
        assert!(read(Path::new("/nonexistent"), 9).is_err());
    }
}
