//! Gives the component a name for what it was built from: a digest of the sources that decide what it generates.
//!
//! A component cannot read its own bytes, and two builds of one source need not have the same. So the digest (XXH3 of
//! names and contents, in the order of names) is that of this crate's and the engine's sources and of `Cargo.lock`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use xxhash_rust::xxh3::Xxh3;

fn main() -> io::Result<()> {
    let mut files = Vec::new();
    for folder in ["src", "../engine/src"] {
        println!("cargo::rerun-if-changed={folder}");
        collect(Path::new(folder), &mut files)?;
    }
    let lock = PathBuf::from("../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    files.push(lock);
    files.sort();
    let mut digest = Xxh3::new();
    for file in files {
        let content = fs::read(&file)?;
        let name = file.to_string_lossy();
        for part in [name.as_bytes(), &content] {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    }
    // What is switched on decides too: candle brings models of its own.
    let candle = env::var_os("CARGO_FEATURE_CANDLE").is_some();
    digest.update(&[u8::from(candle)]);
    println!("cargo::rustc-env=WAFER_SOURCES={:016x}", digest.digest());
    Ok(())
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else {
            into.push(path);
        }
    }
    Ok(())
}
