//! Where the shared test data lies.

use std::path::PathBuf;

/// The path of a file of the shared test data. Without that folder the test is 'ignored': this says so and
/// returns `None`; on CI it fails instead.
pub(crate) fn testdata(name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/testdata");
    if root.is_dir() {
        return Some(root.join(name));
    }
    assert!(std::env::var_os("CI").is_none(), "the shared test data is missing: {}", root.display());
    eprintln!("ignored: {name} is not there");
    None
}
