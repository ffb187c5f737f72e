//! Names of cache entries: digests of everything that an entry depends on.

use sha2::{Digest as _, Sha256};
use std::fmt::{self, Display};
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::path::Path;
use wasmtime::Engine;

/// A SHA-256 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// Of bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// Of a file's content.
    pub(super) fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Digest(digest.finalize().into())),
                read => digest.update(&buffer[..read]),
            }
        }
    }

    /// Of several parts; where one ends and the next begins makes a difference.
    pub(crate) fn of_parts(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Digest(digest.finalize().into())
    }

    /// Of all settings that compiled code depends on: wasmtime's version, the processor, the flags.
    pub(crate) fn of_settings(engine: &Engine) -> Self {
        let mut settings = Settings(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut settings);
        Digest(settings.0.finalize().into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Lets wasmtime write its settings, which it offers as `Hash`, into a digest.
struct Settings(Sha256);

impl Hasher for Settings {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The first bytes of the digest so far, as the trait demands a number.
    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::Config;

    #[test]
    fn whatever_differs_gives_another_digest() {
        let parts: [&[&[u8]]; 5] = [&[], &[b""], &[b"ab"], &[b"a", b"b"], &[b"ab", b""]];
        for (i, a) in parts.iter().enumerate() {
            for (j, b) in parts.iter().enumerate() {
                assert_eq!(Digest::of_parts(a) == Digest::of_parts(b), i == j, "{a:?} {b:?}");
            }
        }
        let interruptible = Engine::new(Config::new().epoch_interruption(true)).expect("valid settings");
        let engine = Engine::default();
        assert_eq!(Digest::of_settings(&engine), Digest::of_settings(&Engine::default()));
        assert_ne!(Digest::of_settings(&engine), Digest::of_settings(&interruptible));
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        let bytes = vec![7; (1 << 20) + 1];
        std::fs::write(file.path(), &bytes).expect("it can be written");
        assert_eq!(Digest::of_file(file.path()).expect("it can be read"), Digest::of(&bytes));
        assert_eq!(Digest::of(b"abc").to_string()[..8], *"ba7816bf");
    }
}
