//! Where a guest finds its model: one directory, read-only, mounted at `/models`, or below it under its own name.
//!
//! Nothing is parsed here; whether the file is a model is for the guest to say. The demo model comes
//! out of the binary through a temporary directory, because a guest's files have to be the system's.

use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use wafer_engine::Folder;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::config::Model;
use crate::embedded;
use crate::report::WithHint;

/// The guest's name for the directory that a model's file is in.
const GUEST_DIRECTORY: &str = "/models";

/// A directory with the model, as host and guest see it.
#[derive(Debug)]
pub(crate) struct Mount {
    /// The directory on the host; all of it can be read by the guest.
    pub(crate) directory: PathBuf,
    /// The guest's MODEL_PATH: `/models/FILE`, or `/models/DIRECTORY`, as models are named after either.
    pub(crate) guest_path: String,
    /// What a message calls the model.
    pub(crate) name: String,
    /// Bytes of the file, where a single one is named.
    pub(crate) size: Option<u64>,
    /// Deleted when the mount is dropped.
    _temporary: Option<TempDir>,
}

impl Mount {
    /// Finds the model and makes it ready to be mounted.
    pub(crate) fn new(model: &Model) -> anyhow::Result<Self> {
        match model {
            Model::Demo => Self::demo().context("cannot unpack the demo model"),
            Model::Path(path) => Self::path(path),
        }
    }

    /// The model's file on the host; none where only a directory is named.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        self.size?;
        let name = self.guest_path.strip_prefix(GUEST_DIRECTORY)?.strip_prefix('/')?;
        Some(self.directory.join(name))
    }

    /// Where the weights are: the file, the only .gguf file of the directory, or a Hugging Face folder.
    pub(crate) fn weights(&self) -> Option<PathBuf> {
        let named = self.file().unwrap_or_else(|| self.directory.clone());
        if Folder::is_one(&named) || !named.is_dir() {
            return Some(named);
        }
        let files = named.read_dir().ok()?.flatten().map(|entry| entry.path());
        let mut models =
            files.filter(|file| file.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")));
        let only = models.next()?;
        models.next().is_none().then_some(only)
    }

    /// The component that can load the model: encoders and encoder-decoders take a larger one.
    pub(crate) fn component(&self) -> &'static [u8] {
        if self.size.is_some() || is_decoder(&self.directory) {
            embedded::COMPONENT
        } else {
            embedded::ENCODERS
        }
    }

    /// Lets a guest see the directory, and know where the model is.
    pub(crate) fn show(&self, wasi: &mut WasiCtxBuilder) -> anyhow::Result<()> {
        let name = if self.size.is_some() { GUEST_DIRECTORY } else { &self.guest_path };
        wasi.preopened_dir(&self.directory, name, FsPerms::ReadOnly)
            .map_err(anyhow::Error::from)
            .with_context(|| format!("cannot open {}", self.directory.display()))?
            .env("MODEL_PATH", &self.guest_path);
        Ok(())
    }

    fn demo() -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new().prefix("wafer-").tempdir()?;
        fs::write(temporary.path().join("demo.gguf"), embedded::DEMO_MODEL)?;
        Ok(Mount {
            directory: temporary.path().to_owned(),
            guest_path: format!("{GUEST_DIRECTORY}/demo.gguf"),
            name: "the demo model".to_owned(),
            size: u64::try_from(embedded::DEMO_MODEL.len()).ok(),
            _temporary: Some(temporary),
        })
    }

    /// Links are followed first: a guest's view ends at its directory, a link often leads out of it.
    fn path(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let found = path
            .canonicalize()
            .with_context(|| format!("cannot open the model {name}"))
            .hint("give the path of a .gguf file, or no path for the built-in demo model")?;
        if found.is_dir() {
            let guest_path = match found.file_name() {
                Some(directory) => format!("{GUEST_DIRECTORY}/{}", guest_name(directory, &name)?),
                None => GUEST_DIRECTORY.to_owned(),
            };
            return Ok(Mount { directory: found, guest_path, name, size: None, _temporary: None });
        }
        let file = fs::File::open(&found).with_context(|| format!("cannot open the model {name}"))?;
        let size = file.metadata().with_context(|| format!("cannot read the size of {name}"))?.len();
        let (Some(directory), Some(file_name)) = (found.parent(), found.file_name()) else {
            bail!("{name} has no directory");
        };
        let file_name = guest_name(file_name, &name)?;
        Ok(Mount {
            directory: directory.to_owned(),
            guest_path: format!("{GUEST_DIRECTORY}/{file_name}"),
            name,
            size: Some(size),
            _temporary: None,
        })
    }
}

/// The last part of the path `path`, as a guest has to spell it.
fn guest_name<'n>(name: &'n OsStr, path: &str) -> anyhow::Result<&'n str> {
    name.to_str().with_context(|| format!("the name of {path} is not UTF-8, a guest cannot open it"))
}

/// Whether a path leads to a decoder; what cannot be read is reported when it is loaded.
pub(crate) fn is_decoder(path: &Path) -> bool {
    let folder = Folder::is_one(path).then(|| Folder::open(path).ok()).flatten();
    folder.is_none_or(|folder| folder.is_decoder())
}

/// Whether a file begins as WebAssembly does. What cannot be read is for others to report.
pub(crate) fn is_webassembly(path: &Path) -> bool {
    let mut magic = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    read.is_ok() && magic == b"\0asm"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_model_lives_as_long_as_its_mount() {
        let mount = Mount::new(&Model::Demo).expect("a temporary directory can be made");
        let file = mount.directory.join("demo.gguf");
        assert_eq!(fs::read(&file).expect("it is a file"), embedded::DEMO_MODEL);
        drop(mount);
        assert!(!file.exists());
    }

    #[test]
    fn files_and_directories_are_named_for_the_guest() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let file = directory.path().join("tiny.gguf");
        fs::write(&file, "12345").expect("it can be written");
        let own = directory.path().file_name().and_then(OsStr::to_str).expect("a name");
        let own = format!("/models/{own}");
        for (path, guest_path, size) in
            [(file.as_path(), "/models/tiny.gguf", Some(5)), (directory.path(), &own, None)]
        {
            let mount = Mount::new(&Model::Path(path.to_owned())).expect("it exists");
            assert_eq!((mount.guest_path.as_str(), mount.size), (guest_path, size));
        }
    }

    #[test]
    fn a_missing_model_is_named() {
        let error = Mount::new(&Model::Path("no/such.gguf".into())).expect_err("it is missing");
        assert!(error.to_string().contains("no/such.gguf"), "{error:#}");
    }
}
