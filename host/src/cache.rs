//! Compiled components on disk, so that only the first start of a version compiles.
//!
//! Machine code is loaded from here without looking at it, therefore the directory has to be the
//! user's own and closed to others; where it cannot be, nothing is cached. Entries are named by what
//! they were made from and appear at once or not at all, so that processes need not know of each other.

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Mode bits that would let others put code here.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A directory of compiled components.
pub(crate) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// The user's cache: `$XDG_CACHE_HOME/wafer`, or `~/.cache/wafer`. It is made where it is missing.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        let Some(base) = base else {
            bail!("neither XDG_CACHE_HOME nor HOME says where it should be");
        };
        Self::at(base.join("wafer"))
    }

    /// The cache in `directory`.
    fn at(directory: PathBuf) -> anyhow::Result<Self> {
        let name = directory.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("cannot make {name}"))?;
        let metadata = fs::metadata(&directory).with_context(|| format!("cannot look at {name}"))?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            bail!("{name} belongs to another user");
        }
        if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
            bail!("{name} can be written by others");
        }
        Ok(Cache { directory })
    }

    /// The component, compiled for `engine`: now, or at an earlier start.
    pub(crate) fn compile(&self, engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Component> {
        let path = self.directory.join(format!("{}.cwasm", key(engine, wasm)));
        if path.exists() {
            match load(engine, &path) {
                Ok(component) => return Ok(component),
                Err(error) => tracing::warn!("cannot use {}, compiling again: {error:#}", path.display()),
            }
        }
        let component = Component::new(engine, wasm)?;
        if let Err(error) = self.store(&path, &component.serialize()?) {
            tracing::warn!("cannot keep the compiled component: {error:#}");
        }
        Ok(component)
    }

    /// Writes an entry. It is on the disk before it has its name, so that no crash leaves half of one.
    fn store(&self, path: &Path, code: &[u8]) -> anyhow::Result<()> {
        let mut file = NamedTempFile::new_in(&self.directory)?;
        file.write_all(code)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }
}

/// Loads compiled code; it is mapped, not read.
#[expect(unsafe_code, reason = "the file was written by this program, see SAFETY")]
fn load(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: only this module makes entries, from `Component::serialize` for an engine of the same
    // version, settings and processor features, which wasmtime checks again. The directory was found to
    // belong to this user and to be closed to all others when it was opened, and entries are never
    // written to once they have their name.
    unsafe { Component::deserialize_file(engine, path) }
}

/// The name of an entry: a digest of the component and of all settings that its code depends on.
fn key(engine: &Engine, wasm: &[u8]) -> String {
    let mut digest = Digest256(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut digest);
    digest.write(wasm);
    digest.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lets wasmtime write its settings, which it offers as `Hash`, into a digest.
struct Digest256(Sha256);

impl Hasher for Digest256 {
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
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;
    use wasmtime::Config;

    /// The least component there is.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn cache(directory: &TempDir) -> Cache {
        Cache::at(directory.path().join("new/wafer")).expect("it can be made")
    }

    fn entries(cache: &Cache) -> Vec<PathBuf> {
        let listed = fs::read_dir(&cache.directory).expect("it can be listed");
        listed.map(|entry| entry.expect("it can be read").path()).collect()
    }

    #[test]
    fn an_entry_is_made_once_and_replaced_when_it_is_broken() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let (cache, engine) = (cache(&directory), Engine::default());
        for _ in 0..2 {
            cache.compile(&engine, EMPTY).expect("it compiles");
            assert_eq!(entries(&cache).len(), 1);
        }
        let entry = entries(&cache).remove(0);
        let whole = fs::read(&entry).expect("it can be read");
        fs::write(&entry, &whole[..10]).expect("it can be written");
        cache.compile(&engine, EMPTY).expect("it compiles again");
        assert_eq!(fs::read(&entry).expect("it can be read"), whole);
    }

    #[test]
    fn settings_and_components_have_entries_of_their_own() {
        let interruptible = Engine::new(Config::new().epoch_interruption(true)).expect("valid settings");
        let engine = Engine::default();
        assert_eq!(key(&engine, EMPTY), key(&engine, EMPTY));
        assert_ne!(key(&engine, EMPTY), key(&interruptible, EMPTY));
        assert_ne!(key(&engine, EMPTY), key(&engine, b""));
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        for (mode, trusted) in [(0o700, true), (0o755, true), (0o770, false), (0o777, false)] {
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).expect("it is ours");
            assert_eq!(Cache::at(directory.path().to_owned()).is_ok(), trusted, "{mode:o}");
        }
    }
}
