//! Compiled components on disk, so that a model is baked and compiled once.
//!
//! Machine code is loaded from here, therefore the directory has to be the user's own and closed to
//! others; where it cannot be, nothing is cached. Entries are named by what they were made from and appear
//! at once or not at all. Beside each lies the digest of its code: an entry that changed since it
//! was made is thrown away, not loaded. That finds damage; against who may write here the directory's owner
//! and mode are the protection.
//!
//! Processes need not know of each other. One that makes an entry holds a lock, so that a second one
//! waits for the entry instead of making it again.

mod command;
mod files;
mod key;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tempfile::NamedTempFile;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::runtime::Compiled;

pub(crate) use command::{clear, list};
pub(crate) use key::Digest;

/// Mode bits that would let others put code here.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// What temporary files begin with.
const UNFINISHED: &str = ".unfinished-";

/// A directory of compiled components.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    /// Bytes that all entries may have together.
    limit: u64,
}

/// What is known of an entry, in a file beside it, whose time is that of the entry's last use.
#[derive(Debug, Serialize, Deserialize)]
struct Label {
    /// What the code is of, for people.
    name: String,
    /// The code's digest.
    sha256: String,
}

/// An entry as `wafer cache ls` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Bytes.
    pub(crate) size: u64,
    #[serde(skip)]
    pub(crate) used: SystemTime,
}

/// The right to make an entry; given back when dropped.
pub(crate) struct Lock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Cache {
    /// The user's cache: `$XDG_CACHE_HOME/wafer`, or `~/.cache/wafer`. It is made where it is missing.
    pub(crate) fn open(limit: u64) -> anyhow::Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        let Some(base) = base else {
            bail!("neither XDG_CACHE_HOME nor HOME says where it should be");
        };
        Self::at(base.join("wafer"), limit)
    }

    /// The cache in `directory`.
    fn at(directory: PathBuf, limit: u64) -> anyhow::Result<Self> {
        let cache = Cache { directory, limit };
        for directory in [cache.directory.clone(), cache.code(), cache.files(), cache.locks()] {
            let name = directory.display();
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.with_context(|| format!("cannot make {name}"))?;
            let metadata = fs::metadata(&directory).with_context(|| format!("cannot look at {name}"))?;
            if metadata.uid() != rustix::process::geteuid().as_raw() {
                bail!("{name} belongs to another user");
            }
            if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
                bail!("{name} can be written by others");
            }
        }
        Ok(cache)
    }

    fn code(&self) -> PathBuf {
        self.directory.join("code")
    }

    fn files(&self) -> PathBuf {
        self.directory.join("files")
    }

    fn locks(&self) -> PathBuf {
        self.directory.join("locks")
    }

    /// Where the cache is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The entry `key`, if it is there and as it was made. It is mapped, not read.
    pub(crate) fn find(&self, engine: &Engine, key: &Digest) -> Option<Component> {
        let path = self.code().join(format!("{key}.cwasm"));
        if !path.exists() {
            return None;
        }
        match self.load(engine, &path) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!("cannot use {}, making it again: {error:#}", path.display());
                None
            }
        }
    }

    #[expect(unsafe_code, reason = "the file was written by this program, see SAFETY")]
    fn load(&self, engine: &Engine, path: &Path) -> anyhow::Result<Component> {
        let label = path.with_extension("json");
        let found: Label = serde_json::from_slice(&fs::read(&label).context("it has no label")?)?;
        if self.digest(path)? != found.sha256 {
            bail!("it changed since it was made");
        }
        // SAFETY: only this module makes entries, from code that wasmtime compiled for an engine of the same
        // version, settings and processor features, which it checks again. The directory was found to
        // belong to this user and to be closed to all others when it was opened, entries are never written
        // to once they have their name, and the digest says that this one was not.
        let component = unsafe { Component::deserialize_file(engine, path) }?;
        // The age of an entry counts from its last use; if that cannot be noted, it goes earlier.
        let _ =
            File::options().append(true).open(&label).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(component)
    }

    /// Keeps code, compiled for `engine`, as the entry `key`, and loads it from there. `name` says what it is. A
    /// cache that cannot be written costs the next start its time, and no more.
    pub(crate) fn keep(
        &self,
        engine: &Engine,
        key: &Digest,
        name: &str,
        code: &Compiled,
    ) -> anyhow::Result<Component> {
        self.write(key, name, code.as_bytes()).and_then(|path| self.load(engine, &path)).or_else(|error| {
            tracing::warn!("{name} is not cached, the next start will compile it again: {error:#}");
            code.load(engine)
        })
    }

    fn write(&self, key: &Digest, name: &str, code: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.code().join(format!("{key}.cwasm"));
        let label = Label { name: name.to_owned(), sha256: Digest::of(code).to_string() };
        self.sweep(code.len() as u64, &path);
        let label_path = path.with_extension("json");
        let kept = || -> io::Result<()> {
            // The label first: an entry without one is not used.
            write(&label_path, &serde_json::to_vec(&label)?)?;
            write(&path, code)
        };
        kept()
            .inspect_err(|_| {
                // Of no use without its entry; if it cannot be deleted either, it does no harm.
                let _ = remove(&label_path);
            })
            .with_context(|| format!("cannot write {} bytes to {}", code.len(), self.directory.display()))?;
        Ok(path)
    }

    /// The component, compiled for `engine`: now, or earlier.
    pub(crate) fn compile(&self, engine: &Engine, name: &str, wasm: &[u8]) -> anyhow::Result<Component> {
        let key = Digest::of_parts(&[Digest::of_settings(engine).as_bytes(), wasm]);
        if let Some(component) = self.find(engine, &key) {
            return Ok(component);
        }
        // Without a lock: the one who bakes holds one already, and two locks may be the same file.
        self.keep(engine, &key, name, &Compiled::new(engine, wasm)?)
    }

    /// Waits until no other process makes the entry `key`. None where the cache cannot be written.
    pub(crate) fn lock(&self, key: &Digest) -> Option<Lock> {
        // One of a few files: entries come and go, and a lock must not be deleted.
        let path = self.locks().join(&key.to_string()[..1]);
        let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
        match locked {
            Ok(file) => Some(Lock(file)),
            Err(error) => {
                tracing::debug!("cannot lock {}: {error}", path.display());
                None
            }
        }
    }

    /// All entries, the last used first.
    pub(crate) fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        let directory = self.code();
        let mut entries = Vec::new();
        for file in
            fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?
        {
            let file = file?.path();
            if file.extension().is_none_or(|extension| extension != "cwasm") {
                continue;
            }
            let label = file.with_extension("json");
            // An entry may be gone by now, or its label.
            let Ok(size) = fs::metadata(&file).map(|metadata| metadata.len()) else { continue };
            let used = fs::metadata(&label).and_then(|metadata| metadata.modified());
            let name = fs::read(&label).ok().and_then(|json| serde_json::from_slice::<Label>(&json).ok());
            entries.push(Entry {
                name: name.map_or_else(|| "unknown".to_owned(), |label| label.name),
                file,
                size,
                used: used.unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
        entries.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.file.cmp(&b.file)));
        Ok(entries)
    }

    /// Deletes all entries and all that is remembered; returns the bytes of the entries.
    pub(crate) fn clear(&self) -> anyhow::Result<u64> {
        let mut freed = 0;
        for directory in [self.code(), self.files()] {
            for file in
                fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?
            {
                let file = file?;
                freed += file.metadata().map_or(0, |metadata| metadata.len());
                remove(&file.path())?;
            }
        }
        Ok(freed)
    }

    /// Makes room for `coming` bytes at `path`: deletes the entries that were not used for longest, and what
    /// processes that were killed left unfinished.
    fn sweep(&self, coming: u64, path: &Path) {
        let swept = || -> anyhow::Result<()> {
            let mut total = coming;
            for entry in self.entries()?.into_iter().filter(|entry| entry.file != path) {
                total = total.saturating_add(entry.size);
                if total > self.limit {
                    tracing::info!(
                        "{} leaves the cache, {} were used later",
                        entry.name,
                        self.directory.display()
                    );
                    remove(&entry.file)?;
                    remove(&entry.file.with_extension("json"))?;
                }
            }
            self.sweep_unfinished()
        };
        if let Err(error) = swept() {
            tracing::debug!("cannot tidy up the cache: {error:#}");
        }
    }

    /// Unfinished files belong to a running process only while they are young.
    fn sweep_unfinished(&self) -> anyhow::Result<()> {
        const OLD: std::time::Duration = std::time::Duration::from_secs(3600);
        for directory in [self.code(), self.files()] {
            for file in fs::read_dir(directory)? {
                let file = file?;
                let unfinished = file.file_name().to_string_lossy().starts_with(UNFINISHED);
                let old = || file.metadata().ok()?.modified().ok()?.elapsed().ok().map(|age| age > OLD);
                if unfinished && old() == Some(true) {
                    remove(&file.path())?;
                }
            }
        }
        Ok(())
    }
}

/// Deletes a file that may be gone already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file. It is on the disk before it has its name, so that no crash leaves half of one.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file: NamedTempFile = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests;
