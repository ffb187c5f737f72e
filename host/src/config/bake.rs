//! What `wafer bake` needs: the model, the component to bake it into, and what to make of the two.

use std::path::{Path, PathBuf};

use super::{Environment, Model, Setup, cores};
use crate::model::Mount;
use crate::native::Native;
use crate::{cli, embedded};

/// `wafer bake`.
#[derive(Debug)]
pub(crate) struct Bake {
    pub(crate) model: Model,
    /// The file to write.
    pub(crate) output: PathBuf,
    pub(crate) setup: Setup,
    pub(crate) world: World,
    /// How the model is computed while it is baked for the world `accelerated`.
    pub(crate) native: Native,
    /// What to compile for; none is not at all.
    pub(crate) compile: Option<Target>,
    /// Whether a token is generated first.
    pub(crate) check: bool,
    /// Bytes of linear memory for that.
    pub(crate) instance_memory: u64,
}

/// A component that a model can be baked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    /// `wafer:inference/portable`.
    Portable,
    /// WASI 0.3, with what only Spin has.
    Spin,
    /// `wafer:inference/accelerated`.
    Accelerated,
}

impl World {
    /// The component that a model is baked into.
    pub(crate) fn component(self, mount: &Mount) -> &'static [u8] {
        match self {
            World::Portable => mount.component(),
            World::Spin => embedded::SPIN,
            World::Accelerated => embedded::ACCELERATED,
        }
    }
}

/// What code is compiled for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// This processor, with all that it has.
    Host,
    /// Another one, by its triple.
    Other(String),
}

impl Target {
    /// Where the code is written, beside the component.
    pub(crate) fn file(&self, component: &Path) -> PathBuf {
        match self {
            Target::Host => component.with_extension("cwasm"),
            Target::Other(triple) => component.with_extension(format!("{triple}.cwasm")),
        }
    }
}

impl Bake {
    /// Joins flags, environment and defaults.
    pub(crate) fn new(typed: cli::Bake, environment: &Environment) -> Self {
        Bake {
            model: typed.model.map_or_else(|| environment.model(), Model::Path),
            output: typed.output,
            setup: typed.setup.into(),
            world: match typed.world {
                cli::World::Portable => World::Portable,
                cli::World::Spin => World::Spin,
                cli::World::Accelerated => World::Accelerated,
            },
            compile: typed.compile.map(|triple| match triple.as_str() {
                "" => Target::Host,
                _ => Target::Other(triple),
            }),
            check: typed.check,
            native: Native { threads: cores(), kv_memory: u64::MAX },
            instance_memory: typed.instance.instance_memory.as_u64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_code_lies_beside_the_component() {
        let triple = Target::Other("aarch64-unknown-linux-gnu".into());
        for (target, expected) in
            [(Target::Host, "out/app.cwasm"), (triple, "out/app.aarch64-unknown-linux-gnu.cwasm")]
        {
            assert_eq!(target.file(Path::new("out/app.wasm")), Path::new(expected));
        }
    }
}
