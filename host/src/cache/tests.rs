//! The cache in temporary directories.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// The least component there is, and another.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";
const NAMED: &[u8] = b"\0asm\x0d\0\x01\0\0\x02\x01x";

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

fn cache(directory: &TempDir, limit: u64) -> Cache {
    Cache::at(directory.path().join("new/wafer"), limit).expect("it can be made")
}

#[test]
fn an_entry_is_made_once_and_replaced_when_it_is_broken() {
    let directory = directory();
    let (cache, engine) = (cache(&directory, u64::MAX), Engine::default());
    for _ in 0..2 {
        cache.compile(&engine, "empty", EMPTY).expect("it compiles");
        assert_eq!(cache.entries().expect("a list").len(), 1);
    }
    let entry = cache.entries().expect("a list").remove(0);
    assert_eq!(entry.name, "empty");
    let whole = fs::read(&entry.file).expect("it can be read");
    let label = fs::read(entry.file.with_extension("json")).expect("it can be read");
    let mut tampered = whole.clone();
    tampered[whole.len() / 2] ^= 1;
    for broken in [&whole[..10], &[], &tampered] {
        fs::write(&entry.file, broken).expect("it can be written");
        let key = Digest::of_parts(&[Digest::of_settings(&engine).as_bytes(), EMPTY]);
        assert!(cache.find(&engine, &key).is_none(), "{} bytes", broken.len());
        cache.compile(&engine, "empty", EMPTY).expect("it compiles again");
        assert_eq!(fs::read(&entry.file).expect("it can be read"), whole);
    }
    for broken in [&b"{"[..], b""] {
        fs::write(entry.file.with_extension("json"), broken).expect("it can be written");
        cache.compile(&engine, "empty", EMPTY).expect("it compiles again");
        assert_eq!(fs::read(entry.file.with_extension("json")).expect("it can be read"), label);
    }
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let directory = directory();
    let (roomy, engine) = (cache(&directory, u64::MAX), Engine::default());
    for (age, wasm) in [(10, EMPTY), (20, NAMED)] {
        roomy.compile(&engine, &age.to_string(), wasm).expect("it compiles");
    }
    for entry in roomy.entries().expect("a list") {
        let age = Duration::from_secs(entry.name.parse().expect("a number"));
        let label = File::options().append(true).open(entry.file.with_extension("json")).expect("a label");
        label.set_modified(SystemTime::now() - age).expect("it is ours");
    }
    let names = |cache: &Cache| -> Vec<String> {
        cache.entries().expect("a list").into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(names(&roomy), ["10", "20"]);
    roomy.compile(&engine, "20", NAMED).expect("it is there");
    assert_eq!(names(&roomy), ["20", "10"]);

    let size = roomy.entries().expect("a list")[0].size;
    let tight = cache(&directory, 2 * size + size / 2);
    let other = [NAMED, &[0, 2, 1, b'y']].concat();
    tight.compile(&engine, "new", &other).expect("it compiles");
    assert_eq!(names(&tight), ["new", "20"]);
    assert!(tight.clear().expect("it is ours") > 0);
    assert!(names(&tight).is_empty());
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let directory = directory();
    for (mode, trusted) in [(0o700, true), (0o755, true), (0o770, false), (0o777, false)] {
        fs::set_permissions(directory.path(), Permissions::from_mode(mode)).expect("it is ours");
        assert_eq!(Cache::at(directory.path().to_owned(), 0).is_ok(), trusted, "{mode:o}");
    }
}
