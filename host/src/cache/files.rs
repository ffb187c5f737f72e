//! Digests of files, remembered: a model of a gigabyte is not read again to know that it is the same.
//!
//! A file counts as unchanged while its identity, size and times are what they were. The time of the last
//! change of its inode is among them, which writing to a file moves and no program can set back.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::key::Digest;
use super::{Cache, write};

/// What was known of a file when it was read.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    seen: Seen,
    sha256: String,
}

impl Seen {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Seen {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Cache {
    /// The digest of a file's content, in hexadecimal; computed if the file is not known or has changed.
    pub(crate) fn digest(&self, path: &Path) -> io::Result<String> {
        let path = path.canonicalize()?;
        let seen = Seen::of(&path)?;
        let memory = self.files().join(Digest::of(path.as_os_str().as_encoded_bytes()).to_string());
        // Whatever is wrong with the memory, the file itself can be read.
        let known = fs::read(&memory).ok().and_then(|json| serde_json::from_slice::<Known>(&json).ok());
        if let Some(known) = known.filter(|known| known.seen == seen) {
            return Ok(known.sha256);
        }
        let sha256 = Digest::of_file(&path)?.to_string();
        // Had the file changed while it was read, the digest would not be its own.
        if Seen::of(&path)? == seen {
            let json = serde_json::to_vec(&Known { seen, sha256: sha256.clone() })?;
            if let Err(error) = write(&memory, &json) {
                tracing::debug!("cannot remember the digest of {}: {error}", path.display());
            }
        }
        Ok(sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_digest_is_remembered_until_the_file_changes() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let cache = Cache::at(directory.path().join("wafer"), u64::MAX).expect("it can be made");
        let file = directory.path().join("model.gguf");
        let memory = || -> PathBuf {
            let entry = fs::read_dir(cache.files()).expect("a directory").next().expect("an entry");
            entry.expect("it can be read").path()
        };
        for content in ["one", "two", "six"] {
            fs::write(&file, content).expect("it can be written");
            let expected = Digest::of(content.as_bytes()).to_string();
            assert_eq!(cache.digest(&file).expect("it can be read"), expected);
        }
        // What is remembered is used…
        let json = fs::read_to_string(memory()).expect("it can be read");
        let forged = json.replace(&Digest::of(b"six").to_string(), "remembered");
        fs::write(memory(), &forged).expect("it can be written");
        assert_eq!(cache.digest(&file).expect("it can be read"), "remembered");
        // …unless it is damaged.
        fs::write(memory(), &forged[..20]).expect("it can be written");
        assert_eq!(cache.digest(&file).expect("it can be read"), Digest::of(b"six").to_string());
    }
}
